from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing import services
from billing.credits import CreditKind
from billing.models import Account, AccountClosing, Invoice, MailMessage, Membership, Subscription
from billing.services import (
    AccountClosingError,
    Actor,
    ClosingRefusedError,
    Gift,
    SandboxesRunError,
    UnpaidError,
)
from billing.services.top_ups import prepaid_balance
from metering.models import AccountRegistration, Life
from tests.billing.mail import open_with_owner
from tests.billing.usage import (
    MAY,
    NOON,
    OPENED,
    bill,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db

MIDDLE = datetime(2026, 5, 17, 6, 7, tzinfo=UTC)
WINDOW_END = datetime(2026, 5, 17, 6, 15, tzinfo=UTC)
SETTLED = WINDOW_END + timedelta(minutes=20)


def used(account: Account, at: datetime = NOON, *, cpu_s: int = 3_000_000) -> None:
    """Leave usage of a sandbox that was stopped after it."""
    record_usage(account.pk, at, cpu_s=cpu_s)
    Life.objects.filter(sandbox__account=account.pk).update(ended_at=at + timedelta(minutes=15))


def sweep(now: datetime = SETTLED) -> None:
    """Do what the sweeps do, with everything read."""
    read_streams_until(now)
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)
    services.advance_closings(now)


def close(
    account: Account, now: datetime = MIDDLE, *, stop_sandboxes: bool = False
) -> AccountClosing:
    return services.close_account(account.pk, now=now, stop_sandboxes=stop_sandboxes)


def waiting_for(account: Account) -> str:
    account.refresh_from_db()
    return AccountClosing.objects.get(account=account).waiting_for


@pytest.mark.parametrize("plan_code", [None, "professional"])
def test_an_account_with_nothing_owed_is_closed_after_its_grace(plan_code: str | None) -> None:
    account = open_account(plan_code=plan_code)
    close(account)
    account.refresh_from_db()
    assert (account.closing_at, account.ends_at, account.closed_at) == (MIDDLE, WINDOW_END, None)
    services.advance_closings(MIDDLE)
    assert waiting_for(account) == "The last period is not invoiced yet."
    sweep()
    if plan_code:
        [invoice] = Invoice.objects.all()
        assert (invoice.kind, invoice.period_end) == (Invoice.Kind.FINAL, WINDOW_END)
        assert "Not paid" in waiting_for(account)
        services.mark_paid(invoice.pk, because=services.Because("Paid"), now=SETTLED)
        services.advance_closings(SETTLED)
    assert waiting_for(account) == ""
    assert account.closed_at == SETTLED
    assert not Subscription.objects.filter(expires_at=None).exists()


def test_the_final_invoice_has_the_usage_up_to_the_end_and_the_fee_by_the_second() -> None:
    account = open_account(plan_code="professional")
    used(account, cpu_s=20_000_000)
    close(account)
    sweep()
    [invoice] = Invoice.objects.all()
    days = Decimal((WINDOW_END - OPENED).total_seconds()) / Decimal(
        (MAY.end - OPENED).total_seconds()
    )
    assert invoice.subscription_fee == (99 * days).quantize(Decimal("0.01"))
    assert invoice.usage_fee == 240


def test_without_a_plan_the_period_ends_with_a_final_invoice_too() -> None:
    account = open_account()
    used(account)
    close(account)
    sweep()
    [invoice] = Invoice.objects.all()
    assert (invoice.kind, invoice.period_end, invoice.usage_fee) == ("final", WINDOW_END, 36)


def test_it_is_asked_for_twice_and_closed_once() -> None:
    account = open_with_owner()
    first = close(account)
    assert close(account, MIDDLE + timedelta(hours=1)) == first
    for later in range(3):
        sweep(SETTLED + timedelta(minutes=later))
    account.refresh_from_db()
    assert account.closed_at == SETTLED
    assert list(MailMessage.objects.order_by("kind").values_list("kind", flat=True)) == [
        "account_closed",
        "account_closing",
    ]


def test_an_unpaid_invoice_keeps_it_from_closing_and_is_named() -> None:
    account = open_account()
    used(account)
    invoice = bill(account)
    with pytest.raises(UnpaidError, match=str(invoice.number)):
        close(account, MAY.end + timedelta(days=1))
    account.refresh_from_db()
    assert account.closing_at is None


def test_a_commitment_keeps_it_from_closing() -> None:
    account = open_account()
    agreed = services.AgreedTerms(commitment_minimum=Decimal(50), commitment_months=12)
    services.subscribe(account.pk, plan_code="team", now=OPENED, agreed=agreed)
    with pytest.raises(ClosingRefusedError, match="committed until"):
        close(account)


def test_sandboxes_that_run_keep_it_from_closing_and_are_named() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1)
    with pytest.raises(SandboxesRunError, match="sbx-1"):
        close(account)


def test_with_the_word_to_stop_them_it_ends_when_nothing_runs() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3_000_000)
    close(account, stop_sandboxes=True)
    later = MIDDLE + timedelta(hours=1)
    services.advance_closings(later)
    assert waiting_for(account) == "Sandboxes run: sbx-1."
    assert account.ends_at is None
    Life.objects.update(ended_at=later)
    services.advance_closings(later)
    account.refresh_from_db()
    assert account.ends_at == datetime(2026, 5, 17, 7, 15, tzinfo=UTC)
    sweep(later + timedelta(minutes=30))
    assert Invoice.objects.get().usage_fee == 36


def test_nothing_begins_in_an_account_that_closes() -> None:
    account = open_account(plan_code="professional")
    services.set_automatic_top_up(account.pk, threshold=Decimal(10), amount=Decimal(50))
    services.invite(
        account.pk,
        email="b@example.com",
        role=Membership.Role.VIEWER,
        by=Actor(Membership.Role.OWNER),
        now=NOON,
    )
    close(account)
    account.refresh_from_db()
    assert (account.top_up_threshold, account.top_up_amount) == (None, None)
    assert not services.open_invitations(account.pk, now=MIDDLE).exists()
    with pytest.raises(AccountClosingError):
        services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    with pytest.raises(AccountClosingError):
        services.request_top_up(account.pk, Decimal(10), now=MIDDLE)
    with pytest.raises(AccountClosingError):
        services.set_automatic_top_up(account.pk, threshold=Decimal(10), amount=Decimal(50))
    with pytest.raises(AccountClosingError):
        services.issue_api_key(account.pk, name="late", now=MIDDLE)
    with pytest.raises(AccountClosingError):
        services.invite(
            account.pk,
            email="c@example.com",
            role=Membership.Role.VIEWER,
            by=Actor(Membership.Role.OWNER),
            now=MIDDLE,
        )


def test_a_plan_that_was_to_follow_does_not() -> None:
    account = open_account(plan_code="professional")
    services.cancel_subscription_now(account.pk, now=MIDDLE)
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    close(account)
    assert [row.plan.code for row in account.subscriptions.all()] == ["professional"]
    account.refresh_from_db()
    assert account.ends_at == WINDOW_END


def test_keys_work_until_it_is_closed() -> None:
    account = open_account()
    key = services.issue_api_key(account.pk, name="ci", now=NOON).key
    close(account)
    assert services.authenticate_api_key(key, now=MIDDLE)
    sweep()
    assert services.authenticate_api_key(key, now=SETTLED) is None


def test_promotional_credit_lapses_and_prepaid_credit_keeps_it_open_until_somebody_decides() -> (
    None
):
    account = open_account()
    grants = [
        services.grant_credit(account.pk, Gift(kind, Decimal(25), "For you", kind), now=NOON)
        for kind in (CreditKind.PROMOTIONAL, CreditKind.PREPAID)
    ]
    close(account)
    sweep()
    assert "25.00 USD of prepaid credit" in waiting_for(account)
    by = services.ByHand(reason="It was a gift", user_id=None)
    services.revoke_credit(grants[1].pk, by=by, now=SETTLED)
    services.advance_closings(SETTLED)
    account.refresh_from_db()
    assert account.closed_at == SETTLED
    assert prepaid_balance(account) == 0
    assert [entry.amount for entry in grants[0].entries.order_by("pk")] == [25, -25]


def test_lives_that_start_after_it_was_asked_for_are_not_metered() -> None:
    account = open_account()
    close(account)
    registered = AccountRegistration.objects.get(pk=account.pk)
    before, after = MIDDLE - timedelta(seconds=1), MIDDLE
    assert registered.takes_life_of(int(before.timestamp() * 1000))
    assert not registered.takes_life_of(int(after.timestamp() * 1000))


def test_a_period_that_is_over_is_invoiced_before_the_last_one() -> None:
    account = open_account(plan_code="professional")
    asked_at = MAY.end + timedelta(minutes=5)
    close(account, asked_at)
    later = asked_at + timedelta(minutes=40)
    for _ in range(2):
        sweep(later)
    periods = Invoice.objects.order_by("period_start").values_list(
        "period_start", "period_end", "kind"
    )
    assert list(periods) == [
        (OPENED, MAY.end, "usage"),
        (MAY.end, MAY.end + timedelta(minutes=15), "final"),
    ]
