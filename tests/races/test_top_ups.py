"""Prepaid credit that several workers ask for, or grant, at the same moment."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.models import Account, CreditGrant, Invoice, TopUp
from billing.services import top_ups
from billing.services.top_ups import (
    grant_top_up,
    prepaid_balance,
    request_due_top_up,
    request_top_up,
    set_automatic_top_up,
)
from tests.billing.usage import NOON, open_account
from tests.races.test_caps import meet_before
from tests.races.test_members import without_a_lock
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

AMOUNT = Decimal(50)


def account_below_its_threshold() -> Account:
    account = open_account()
    return set_automatic_top_up(account.pk, threshold=Decimal(10), amount=AMOUNT)


def test_ten_who_see_little_credit_ask_for_one_top_up() -> None:
    account = account_below_its_threshold()
    statuses = run_at_once(lambda _: request_due_top_up(account.pk, now=NOON))
    assert statuses == [0] * WORKERS
    assert TopUp.objects.count() == 1


def test_without_the_accounts_lock_two_ask_and_one_of_them_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = account_below_its_threshold()
    monkeypatch.setattr(top_ups, "lock_account", without_a_lock)
    meet_before(monkeypatch, top_ups, "prepaid_balance")
    statuses = run_at_once(lambda _: request_due_top_up(account.pk, now=NOON), workers=2)
    assert sorted(statuses) == [0, 1]


def test_a_top_up_whose_money_ten_workers_see_is_granted_and_invoiced_once() -> None:
    account = open_account()
    top_up = request_top_up(account.pk, AMOUNT, now=NOON)
    assert run_at_once(lambda _: grant_top_up(top_up.pk, now=NOON)) == [0] * WORKERS
    assert prepaid_balance(account) == AMOUNT
    assert Invoice.objects.count() == CreditGrant.objects.count() == 1


def test_without_the_accounts_lock_it_is_invoiced_twice_and_granted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = open_account()
    top_up = request_top_up(account.pk, AMOUNT, now=NOON)
    monkeypatch.setattr(top_ups, "lock_account", without_a_lock)
    meet_before(monkeypatch, top_ups, "grant_credit")
    assert run_at_once(lambda _: grant_top_up(top_up.pk, now=NOON), workers=2) == [0, 0]
    assert Invoice.objects.count() == 2
    # By its reference, which the ledger holds to.
    assert prepaid_balance(account) == AMOUNT
