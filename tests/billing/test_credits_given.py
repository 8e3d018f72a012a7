from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import services
from billing.credits import CreditKind
from billing.models import Account, CreditEntry, CreditGrant, Invoice, Plan, TopUp
from billing.services.credit_moves import refund_credits
from metering.period import Period
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    credits_left,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db

PROMOTION = services.Gift(
    kind=CreditKind.PROMOTIONAL, amount=Decimal(50), reason="Welcome", reference="welcome"
)
PREPAID = services.Gift(
    kind=CreditKind.PREPAID, amount=Decimal(500), reason="Paid by wire", reference="wire-1"
)
BY_HAND = services.ByHand(reason="Outage of 3 May", reference="ticket-7")


def entries(account: Account) -> list[tuple[str, str, str]]:
    rows = CreditEntry.objects.filter(grant__account=account).select_related("grant")
    return [(row.grant.kind, row.kind, f"{row.amount:.2f}") for row in rows]


def bill(account: Account, period: Period) -> Invoice | None:
    now = period.end + timedelta(minutes=15)
    read_streams_until(now)
    draft = services.draft_invoice(account.pk, period=period, now=now)
    return services.finalise_invoice(draft.pk, now=now)


def test_credit_is_granted_once_under_its_reference() -> None:
    account = open_account()
    first = services.grant_credit(account.pk, PROMOTION, now=NOON)
    assert services.grant_credit(account.pk, PROMOTION, now=NOON) == first
    assert entries(account) == [("promotional", "grant", "50.00")]
    with pytest.raises(services.CreditRefusedError, match="Use another reference"):
        services.grant_credit(account.pk, replace(PROMOTION, amount=Decimal(60)), now=NOON)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"amount": Decimal(0)}, "amount is 0"),
        ({"amount": Decimal(-1)}, "above 0"),
        ({"amount": Decimal("NaN")}, "above 0"),
        ({"amount": Decimal("0.001")}, "whole cents"),
        ({"reference": ""}, "reference"),
        ({"reason": ""}, "reason"),
        ({"kind": CreditKind.MONTHLY}, "comes with a subscription"),
        ({"expires_at": NOON}, "Use a time after"),
    ],
)
def test_credit_that_is_no_good_is_refused(change: dict[str, object], sentence: str) -> None:
    account = open_account()
    with pytest.raises(services.CreditRefusedError, match=sentence):
        services.grant_credit(account.pk, replace(PROMOTION, **change), now=NOON)  # type: ignore[arg-type]
    assert entries(account) == []


def test_monthly_credit_comes_first_then_promotional_and_prepaid_pays_the_rest() -> None:
    account = open_account(plan_code="professional")
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.grant_credit(account.pk, PREPAID, now=NOON)
    record_usage(account.pk, NOON, cpu_s=12_000_000)
    preview = services.draft_current_period(account.pk, now=NOON)
    invoice = bill(account, MAY)
    assert invoice is not None
    # 144.00 of usage: 100 of monthly credit, 44 of the promotion; the fee of 99 is prepaid.
    assert (invoice.usage_fee, invoice.credits_used) == (144, 144)
    assert (invoice.total_amount, invoice.prepaid_used, invoice.amount_due) == (99, 99, 0)
    assert (preview.credits_used, preview.prepaid_used) == (144, 99)
    assert (invoice.status, invoice.paid_at is None) == ("paid", False)
    assert entries(account)[3:] == [
        ("monthly", "use", "-100.00"),
        ("promotional", "use", "-44.00"),
        ("prepaid", "use", "-99.00"),
    ]


def test_promotional_credit_lowers_what_is_taxed_and_prepaid_credit_does_not() -> None:
    account = open_account()
    Account.objects.filter(pk=account.pk).update(tax_rate=Decimal("0.1"))
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.grant_credit(account.pk, PREPAID, now=NOON)
    record_usage(account.pk, NOON, cpu_s=10**7)
    invoice = bill(account, MAY)
    assert invoice is not None
    assert (invoice.usage_fee, invoice.credits_used, invoice.tax) == (120, 50, 7)
    assert (invoice.total_amount, invoice.prepaid_used) == (77, 77)


def test_credit_pays_for_the_periods_it_is_in_force_in_and_expires_after_them() -> None:
    account = open_account()
    until = datetime(2026, 6, 10, tzinfo=UTC)
    services.grant_credit(account.pk, replace(PROMOTION, expires_at=until), now=NOON)
    record_usage(account.pk, JUNE.start, cpu_s=10**6)
    bill(account, MAY)
    services.expire_due_credits(until + timedelta(days=1))
    assert credits_left(account, JUNE).amount == 50  # June may still be paid with it
    invoice = bill(account, JUNE)
    assert invoice is not None
    assert invoice.credits_used == 12
    assert entries(account)[1:] == [
        ("promotional", "use", "-12.00"),
        ("promotional", "expire", "-38.00"),
    ]


def test_credit_that_lapsed_between_invoices_is_swept() -> None:
    account = open_account()
    services.grant_credit(
        account.pk, replace(PROMOTION, expires_at=MAY.start + timedelta(days=20)), now=NOON
    )
    Account.objects.filter(pk=account.pk).update(
        open_period_start=JUNE.start, open_period_end=JUNE.end
    )
    assert services.expire_due_credits(AFTER_MAY) == 1
    assert services.expire_due_credits(AFTER_MAY) == 0
    assert entries(account)[1:] == [("promotional", "expire", "-50.00")]


def test_monthly_credit_rolls_over_when_the_plan_says_so() -> None:
    Plan.objects.filter(code="professional").update(credit_rollover_periods=1)
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=2_500_000)
    bill(account, MAY)
    record_usage(account.pk, JUNE.start, cpu_s=10**7)
    services.grant_due_credits(JUNE.start)
    invoice = bill(account, JUNE)
    assert invoice is not None
    assert invoice.credits_used == 120
    # May's 70 left first, for they expire sooner, then 50 of June's.
    assert entries(account) == [
        ("monthly", "grant", "100.00"),
        ("monthly", "use", "-30.00"),
        ("monthly", "grant", "100.00"),
        ("monthly", "use", "-70.00"),
        ("monthly", "use", "-50.00"),
    ]


def test_revoking_takes_what_is_left_and_once() -> None:
    account = open_account()
    grant = services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.use_credit(account.pk, Decimal(20), by=BY_HAND, now=NOON)
    for _ in range(2):
        services.revoke_credit(grant.pk, by=services.ByHand(reason="Mistake"), now=NOON)
    assert entries(account) == [
        ("promotional", "grant", "50.00"),
        ("promotional", "use", "-20.00"),
        ("promotional", "revoke", "-30.00"),
    ]


def test_credit_used_by_hand_is_used_once_under_its_reference() -> None:
    account = open_account(plan_code="professional")
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    first = services.use_credit(account.pk, Decimal(120), by=BY_HAND, now=NOON)
    assert services.use_credit(account.pk, Decimal(120), by=BY_HAND, now=NOON) == first
    assert entries(account)[2:] == [("monthly", "use", "-100.00"), ("promotional", "use", "-20.00")]


def test_more_credit_than_there_is_cannot_be_used_by_hand() -> None:
    account = open_account()
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    with pytest.raises(services.CreditRefusedError, match=r"50\.00 USD of credit are left"):
        services.use_credit(account.pk, Decimal("50.01"), by=BY_HAND, now=NOON)
    assert credits_left(account, MAY).amount == 50


@pytest.mark.parametrize("by", [services.ByHand(reason="x"), services.ByHand(reference="x")])
def test_a_use_by_hand_says_why_and_under_which_name(by: services.ByHand) -> None:
    with pytest.raises(services.CreditRefusedError, match="a reference and a reason"):
        services.use_credit(open_account().pk, Decimal(1), by=by, now=NOON)


def test_prepaid_credit_is_taken_once_and_the_other_kinds_stay() -> None:
    account = open_account(plan_code="professional")
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.grant_credit(account.pk, PREPAID, now=NOON)
    first = services.take_prepaid(account.pk, Decimal(300), by=BY_HAND, now=NOON)
    assert services.take_prepaid(account.pk, Decimal(300), by=BY_HAND, now=NOON) == first
    assert entries(account)[3:] == [("prepaid", "use", "-300.00")]
    with pytest.raises(services.CreditRefusedError, match="Use another reference"):
        services.take_prepaid(account.pk, Decimal(200), by=BY_HAND, now=NOON)


def test_no_more_prepaid_credit_is_taken_than_there_is() -> None:
    account = open_account(plan_code="professional")
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.grant_credit(account.pk, PREPAID, now=NOON)
    with pytest.raises(services.CreditRefusedError, match=r"500\.00 USD of credit are left"):
        services.take_prepaid(account.pk, Decimal("500.01"), by=BY_HAND, now=NOON)
    assert [kind for _, kind, _ in entries(account)] == ["grant"] * 3


def test_what_other_credit_gave_is_not_taken_for_prepaid() -> None:
    account = open_account()
    services.grant_credit(account.pk, PROMOTION, now=NOON)
    services.use_credit(account.pk, Decimal(20), by=BY_HAND, now=NOON)
    services.grant_credit(account.pk, PREPAID, now=NOON)
    with pytest.raises(services.CreditRefusedError, match="Use another reference"):
        services.take_prepaid(account.pk, Decimal(20), by=BY_HAND, now=NOON)


def test_monthly_credit_used_by_hand_before_a_cancellation_is_not_given_twice() -> None:
    account = open_account(plan_code="professional")
    services.use_credit(account.pk, Decimal(70), by=BY_HAND, now=NOON)
    services.cancel_subscription_now(account.pk, now=datetime(2026, 5, 17, tzinfo=UTC))
    # 51.65 were earned and 70 used: what is left is taken back, and nothing below zero.
    assert entries(account)[2:] == [("monthly", "revoke", "-30.00")]
    assert credits_left(account, MAY).amount == 0


def test_what_an_invoice_used_is_given_back_once() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=10**6)
    invoice = bill(account, MAY)
    assert invoice is not None
    for _ in range(2):
        refund_credits(account, invoice, now=AFTER_MAY)
    assert entries(account)[-1] == ("monthly", "refund", "12.00")
    assert CreditEntry.objects.filter(kind="refund").count() == 1


def test_what_is_given_back_after_its_expiry_expires_again() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=10**6)
    invoice = bill(account, MAY)
    assert invoice is not None
    refund_credits(account, invoice, now=AFTER_MAY)
    assert services.expire_due_credits(AFTER_MAY) == 1
    assert entries(account)[-3:] == [
        ("monthly", "expire", "-88.00"),
        ("monthly", "refund", "12.00"),
        ("monthly", "expire", "-12.00"),
    ]


def test_a_top_up_becomes_prepaid_credit_once_it_is_paid() -> None:
    account = open_account()
    top_up = services.request_top_up(account.pk, Decimal(100), now=NOON)
    assert entries(account) == []
    for _ in range(2):
        services.grant_top_up(top_up.pk, now=NOON)
    assert entries(account) == [("prepaid", "grant", "100.00")]
    assert TopUp.objects.get().grant == CreditGrant.objects.get()


def test_a_top_up_that_was_given_up_is_not_granted() -> None:
    top_up = services.request_top_up(open_account().pk, Decimal(100), now=NOON)
    services.give_up_top_up(top_up.pk, now=NOON)
    with pytest.raises(services.CreditRefusedError, match="given up"):
        services.grant_top_up(top_up.pk, now=NOON)


def test_automatic_top_up_asks_once_when_less_than_the_threshold_is_left() -> None:
    account = open_account()
    services.grant_credit(account.pk, replace(PREPAID, amount=Decimal(20)), now=NOON)
    services.set_automatic_top_up(account.pk, threshold=Decimal(20), amount=Decimal(50))
    assert services.request_due_top_ups(NOON) == 0
    services.use_credit(account.pk, Decimal("0.01"), by=BY_HAND, now=NOON)
    assert services.request_due_top_ups(NOON) == 1
    assert services.request_due_top_ups(NOON) == 0
    top_up = TopUp.objects.get()
    assert (top_up.amount, top_up.is_automatic) == (50, True)
    services.grant_top_up(top_up.pk, now=NOON)
    assert services.request_due_top_ups(NOON) == 0
    services.set_automatic_top_up(account.pk, threshold=None, amount=None)
    assert Account.objects.get().top_up_amount is None


@pytest.mark.parametrize(
    ("threshold", "amount"),
    [("1", None), (None, "1"), ("-1", "1"), ("1", "0"), ("NaN", "1"), ("1", "NaN")],
)
def test_half_an_automatic_top_up_is_refused(threshold: str | None, amount: str | None) -> None:
    with pytest.raises(services.TopUpRefusedError, match="threshold of 0 or more"):
        services.set_automatic_top_up(
            open_account().pk,
            threshold=None if threshold is None else Decimal(threshold),
            amount=None if amount is None else Decimal(amount),
        )


def test_a_top_up_of_nothing_is_refused() -> None:
    with pytest.raises(services.TopUpRefusedError, match="above 0"):
        services.request_top_up(open_account().pk, Decimal(0), now=OPENED)


def test_credit_asked_for_again_after_it_expired_is_found() -> None:
    account = open_account()
    gift = services.Gift(CreditKind.PROMOTIONAL, Decimal(5), "Spring", "spring", expires_at=MAY.end)
    grant = services.grant_credit(account.pk, gift, now=NOON)
    assert services.grant_credit(account.pk, gift, now=AFTER_MAY) == grant
    assert CreditEntry.objects.count() == 1


def test_a_top_up_is_given_up_under_the_lock_that_its_money_takes() -> None:
    account = open_account()
    top_up = services.request_top_up(account.pk, Decimal(50), now=NOON)
    with CaptureQueriesContext(connection) as queries:
        services.give_up_top_up(top_up.pk, now=NOON)
    statements = [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]
    locked = next(at for at, sql in enumerate(statements) if "FOR UPDATE" in sql)
    assert all(sql.startswith("SELECT") for sql in statements[:locked])
