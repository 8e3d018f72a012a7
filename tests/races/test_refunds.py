"""Two refunds of 20 of a payment of 36, at once."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import IntegrityError, connections
from django.db.models import Sum

from billing.services.top_ups import prepaid_balance
from payments.models import Payment, Refund
from payments.services.offline import Transfer, record_offline_payment
from payments.services.refundable import refundable
from payments.services.refunds import Proposal, RefundRefusedError, propose_refund
from tests.billing.usage import NOON, open_account
from tests.races.workers import run_at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

PAYMENTS = 40
WORKERS = 2
CAME = Decimal(36)
ASKED = Decimal(20)
LATER = NOON + timedelta(days=1)


def payments() -> list[Payment]:
    """Return payments for nothing, so that all of them became prepaid credit."""
    made = []
    for number in range(PAYMENTS):
        account = open_account(f"Ada {number}")
        transfer = Transfer(CAME, "TX", NOON)
        made.append(record_offline_payment(account.pk, transfer, user_id=None, now=NOON))
    return made


def asked_back(payment: Payment) -> Decimal:
    total: Decimal | None = payment.refunds.aggregate(sum=Sum("amount"))["sum"]
    return total or Decimal(0)


def test_no_more_is_asked_back_than_came_and_its_credit_goes_with_it() -> None:
    made = payments()

    def work(worker: int) -> None:
        for payment in made:
            proposal = Proposal(ASKED, "Race", f"race {worker}")
            with contextlib.suppress(RefundRefusedError):
                propose_refund(payment.pk, proposal, now=LATER)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    for payment in made:
        assert asked_back(payment) == ASKED
        assert prepaid_balance(payment.account) == CAME - ASKED


def test_the_same_refund_twice_at_once_is_one() -> None:
    made = payments()

    def work(_worker: int) -> None:
        for payment in made:
            propose_refund(payment.pk, Proposal(ASKED, "Race", "race"), now=LATER)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    assert [asked_back(payment) for payment in made] == [ASKED] * PAYMENTS


def propose_without_lock(payment: Payment, worker: int) -> None:
    """What proposing would be without the account's lock: look, then write."""
    if refundable(payment).amount.amount < ASKED:
        return
    time.sleep(0.01)  # as long as taking the credit takes
    Refund.objects.create(
        payment=payment,
        amount=ASKED,
        status="approved",
        reason="Race",
        reference=f"race {worker}",
        proposed_at=LATER,
        try_at=LATER,
    )


def set_trigger(state: str) -> None:
    """Enable or disable the database's own guard, as the owner."""
    parameters = {**connections["owner"].get_connection_params()}
    parameters["dbname"] = connections["default"].settings_dict["NAME"]
    with psycopg.connect(**parameters) as connection:
        connection.execute(
            f"ALTER TABLE payments_refund {state} TRIGGER refunds_are_no_more_than_the_payment"
        )


def test_control_without_lock_and_trigger_more_is_asked_back() -> None:
    made = payments()

    def work(worker: int) -> None:
        for payment in made:
            propose_without_lock(payment, worker)

    set_trigger("DISABLE")
    try:
        assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    finally:
        set_trigger("ENABLE")
    assert any(asked_back(payment) > CAME for payment in made)


def test_the_trigger_alone_keeps_refunds_inside_the_payment() -> None:
    made = payments()

    def work(worker: int) -> None:
        for payment in made:
            # Refused by the database, which waits for the other one and sees it.
            with contextlib.suppress(IntegrityError):
                propose_without_lock(payment, worker)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    assert [asked_back(payment) for payment in made] == [ASKED] * PAYMENTS
