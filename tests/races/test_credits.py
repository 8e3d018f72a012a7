"""Two invoices and a use by hand against one balance of 50, all at once."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import connections, transaction

from billing import services
from billing.credits import CreditKind, draw, total_of
from billing.facts import credits_held
from billing.models import Account, CreditEntry, CreditGrant, Invoice
from billing.money import Money
from billing.services.credits import use_credits
from tests.billing.usage import MAY, NOON, credits_left, open_account
from tests.races.workers import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 100
BALANCE = Decimal(50)
ASKED = Decimal(30)
WORKERS = 3


def open_with_credit(number: int) -> tuple[Account, list[int]]:
    """Open an account with 50 of credit and the drafts of two invoices that want 30 each."""
    account = open_account(f"Ada {number}")
    gift = services.Gift(CreditKind.PROMOTIONAL, BALANCE, "Welcome", "welcome")
    services.grant_credit(account.pk, gift, now=NOON)
    drafts = [
        Invoice.objects.create(
            account=account,
            period_start=MAY.start + timedelta(days=day),
            period_end=MAY.start + timedelta(days=day + 1),
            currency="USD",
            drafted_at=NOON,
            computed_at=NOON,
            finalise_after=MAY.end,
        ).pk
        for day in range(2)
    ]
    return account, drafts


def spend_on_invoice(account_id: UUID, invoice_id: int) -> None:
    """Pay as much of 30 as there is, as finalising does."""
    with transaction.atomic():
        account = services.lock_account(account_id)
        draws = draw(credits_held(account, MAY), Money(ASKED, "USD"))
        use_credits([(Invoice.objects.get(pk=invoice_id), draws)], now=NOON)


def spend_by_hand(account_id: UUID) -> None:
    by = services.ByHand(reason="Race", reference="race")
    # Refused when the invoices were quicker.
    with contextlib.suppress(services.CreditRefusedError):
        services.use_credit(account_id, ASKED, by=by, now=NOON)


@pytest.mark.timeout(600)
def test_no_more_than_the_balance_is_spent() -> None:
    accounts = [open_with_credit(number) for number in range(ROUNDS)]

    def work(worker: int) -> None:
        for account, drafts in accounts:
            if worker < len(drafts):
                spend_on_invoice(account.pk, drafts[worker])
            else:
                spend_by_hand(account.pk)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    for account, _ in accounts:
        # 30 and 20, or 30 by hand and 20: all of it, and not a cent more.
        assert credits_left(account, MAY).amount == 0
        assert CreditEntry.objects.filter(grant__account=account, kind="use").count() == 2


def spend_without_lock(account_id: UUID, invoice_id: int | None) -> None:
    """What spending would be without the account's lock: look, then spend."""
    account = Account.objects.get(pk=account_id)
    draws = draw(credits_held(account, MAY), Money(ASKED, "USD"))
    time.sleep(0.01)  # as long as writing the lines takes
    by_hand = {} if invoice_id else {"reference": "race", "reason": "Race"}
    for drawn in draws:
        CreditEntry.objects.create(
            grant=CreditGrant.objects.get(pk=drawn.credit_id or 0),
            kind=CreditEntry.Kind.USE,
            amount=-drawn.amount.amount,
            invoice_id=invoice_id,
            recorded_at=NOON,
            **by_hand,
        )
    assert total_of(draws, "USD").amount <= ASKED


@pytest.mark.timeout(600)
def test_control_without_the_lock_more_than_the_balance_is_spent() -> None:
    accounts = [open_with_credit(number) for number in range(ROUNDS)]

    def work(worker: int) -> None:
        connections["default"].ensure_connection()
        for account, drafts in accounts:
            spend_without_lock(account.pk, drafts[worker] if worker < len(drafts) else None)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    overspent = [account for account, _ in accounts if credits_left(account, MAY).amount < 0]
    assert overspent
    assert CreditGrant.objects.count() == ROUNDS
