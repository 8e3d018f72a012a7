"""Several workers at the same cases at the same moment."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from uuid import UUID

import pytest

from billing.models import Account, Invoice, MailMessage
from payments.models import Customer, DunningCase
from payments.services import dunning
from payments.services.dunning_steps import refresh_out_of_step, take_due_steps
from tests.local_stripe import LocalStripe
from tests.payments.arrears import Debtor, days, dun
from tests.payments.month import collect
from tests.races.workers import run_at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

DEBTORS = 4
WORKERS = 4


def debtors(stripe: LocalStripe) -> list[Debtor]:
    return [Debtor(stripe, name=f"Ada{number}") for number in range(DEBTORS)]


def sweep(now: datetime) -> None:
    refresh_out_of_step(now)
    take_due_steps(now)


def test_each_step_is_taken_by_one_worker(stripe: LocalStripe) -> None:
    everyone = debtors(stripe)
    assert run_at_once(lambda _: sweep(days(1)), workers=WORKERS) == [0] * WORKERS
    assert [len(debtor.attempts) for debtor in everyone] == [2] * DEBTORS
    collect(days(1))
    assert len(stripe.log("PostInvoicesInvoicePay")) == 2 * DEBTORS


def test_an_account_is_suspended_once(stripe: LocalStripe) -> None:
    everyone = before_suspension(stripe)
    assert run_at_once(lambda _: sweep(days(14.1)), workers=WORKERS) == [0] * WORKERS
    assert [debtor.asked for debtor in everyone] == [["stop"]] * DEBTORS
    told = MailMessage.objects.filter(kind=MailMessage.Kind.ACCOUNT_SUSPENDED)
    assert told.count() == DEBTORS


def test_a_case_is_opened_once(stripe: LocalStripe) -> None:
    everyone = without_cases(stripe)
    assert run_at_once(partial(look_at, everyone), workers=WORKERS) == [0] * WORKERS
    assert DunningCase.objects.count() == len(everyone)


def test_control_without_the_accounts_lock_workers_would_meet(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = without_cases(stripe)
    found = dunning._first_failure

    def look(account_id: UUID) -> Account:
        return Account.objects.get(pk=account_id)

    def find_slowly(invoice: Invoice, *, now: datetime) -> datetime:
        time.sleep(0.2)
        return found(invoice, now=now)

    monkeypatch.setattr(dunning, "lock_account", look)
    monkeypatch.setattr(dunning, "_first_failure", find_slowly)
    assert any(run_at_once(partial(look_at, everyone), workers=WORKERS))


def look_at(everyone: list[Debtor], _worker: int) -> None:
    for debtor in everyone:
        dunning.refresh_account(debtor.account.pk, now=days(0.1))


def without_cases(stripe: LocalStripe) -> list[Debtor]:
    """Return debtors of whom nobody noted that they are."""
    everyone = debtors(stripe)
    DunningCase.objects.all().delete()
    Customer.objects.update(standing=Customer.Standing.ACTIVE)
    return everyone


def before_suspension(stripe: LocalStripe) -> list[Debtor]:
    """Return debtors whose last retry has failed, and whose suspension is due."""
    everyone = debtors(stripe)
    for day in (1, 3, 7):
        dun(days(day))
    take_due_steps(days(14))
    collect(days(14))
    return everyone
