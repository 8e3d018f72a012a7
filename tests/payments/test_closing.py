from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account, AccountClosing
from billing.services.top_ups import prepaid_balance
from metering.models import Life
from payments.models import PlatformRequest, Refund
from payments.services.refunds import approve_refund, mark_refund_done, reject_refund
from tests.billing.usage import open_account, read_streams_until, record_usage
from tests.payments.month import BILLED
from tests.payments.test_offline import record

pytestmark = pytest.mark.django_db

ASKED = BILLED + timedelta(days=2)
SETTLED = ASKED + timedelta(hours=1)


@pytest.fixture(autouse=True)
def _threshold(settings: Settings) -> None:
    settings.REFUND_APPROVAL_THRESHOLD = 100


def sweep() -> None:
    for _ in range(2):
        read_streams_until(SETTLED)
        services.draft_due_invoices(SETTLED)
        services.finalise_due_invoices(SETTLED)
    services.advance_closings(SETTLED)


def closing(account: Account) -> AccountClosing:
    return AccountClosing.objects.select_related("account").get(account=account)


def closed_with(*amounts: str) -> Account:
    """Close an account that has paid these amounts for nothing yet."""
    account = open_account()
    for number, amount in enumerate(amounts):
        record(account, amount, f"TX-{number}")
    services.close_account(account.pk, now=ASKED)
    sweep()
    return account


def done(refund: Refund) -> None:
    mark_refund_done(refund.pk, bank_reference=f"BACK-{refund.pk}", now=SETTLED)


def test_prepaid_credit_that_was_paid_goes_back_once() -> None:
    account = closed_with("60")
    for _ in range(3):
        services.advance_closings(SETTLED)
    refund = Refund.objects.get()
    assert (refund.amount, refund.credit_taken, refund.status) == (60, 60, "approved")
    assert prepaid_balance(account) == 0
    assert closing(account).waiting_for == "A refund of prepaid credit is under way."
    done(refund)
    services.advance_closings(SETTLED)
    assert closing(account).account.closed_at == SETTLED


def test_many_small_payments_wait_for_a_second_person_as_a_large_one_does() -> None:
    account = closed_with("60", "50")
    assert {refund.status for refund in Refund.objects.all()} == {"proposed"}
    assert closing(account).waiting_for == "A refund of prepaid credit waits to be approved."
    manager = User.objects.create_user("manager")
    for refund in Refund.objects.all():
        done(approve_refund(refund.pk, user_id=manager.pk, now=SETTLED))
    services.advance_closings(SETTLED)
    assert closing(account).account.closed_at == SETTLED
    assert prepaid_balance(account) == 0


def test_only_what_is_left_goes_back() -> None:
    account = open_account()
    record(account, "60", "TX-1")
    at = BILLED + timedelta(days=1)
    record_usage(account.pk, at, cpu_s=3_000_000)
    Life.objects.update(ended_at=at)
    services.close_account(account.pk, now=ASKED)
    sweep()
    # 36.00 of usage were paid of it.
    assert closing(account).waiting_for == "A refund of prepaid credit is under way."
    assert Refund.objects.get().amount == 24
    assert account.invoices.get().status == "paid"


def test_a_refund_that_was_rejected_is_not_asked_for_again() -> None:
    account = closed_with("160")
    reject_refund(Refund.objects.get().pk, user_id=None, now=SETTLED)
    for _ in range(2):
        services.advance_closings(SETTLED)
    assert Refund.objects.count() == 1
    assert "Refund it by hand, or revoke it" in closing(account).waiting_for
    assert closing(account).account.closed_at is None


def test_the_platform_is_asked_to_stop_what_runs() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1)
    for _ in range(2):
        services.close_account(account.pk, now=ASKED, stop_sandboxes=True)
    request = PlatformRequest.objects.get()
    assert (request.action, request.reason) == ("stop", "The account is closed")
