from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from billing import services
from billing.fees import Interval
from billing.models import CreditEntry, Event, EventType, Plan, Subscription
from billing.money import Money
from billing.queries import preview_period
from billing.services import PlanChange, SubscriptionRefusedError
from billing.statement import Statement
from tests.billing.usage import JUNE, MAY, NOON, OPENED, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

MIDDLE = datetime(2026, 5, 17, tzinfo=UTC)


def preview(account_id: object, plan_code: str, now: datetime = MIDDLE) -> PlanChange:
    return services.preview_plan_change(account_id, plan_code=plan_code, now=now)  # type: ignore[arg-type]  # of an account


def lines_of(change: PlanChange) -> list[tuple[str, str, str]]:
    return [(line.kind, line.plan, line.amount.text) for line in change.lines]


def test_an_upgrade_gives_back_the_rest_and_asks_for_the_rest() -> None:
    account = open_account(plan_code="professional")
    change = preview(account.pk, "team")
    # 15 of 31 days: of 99.00 given back, of 299.00 asked for.
    assert lines_of(change) == [
        ("fee", "Professional", "-47.90"),
        ("fee", "Team", "144.68"),
    ]
    assert [(line.period.start, line.period.end) for line in change.lines] == [
        (MIDDLE, MAY.end),
        (MIDDLE, MAY.end),
    ]
    assert (change.is_now, change.effective_at) == (True, MIDDLE)
    assert (change.before.subscription_fee.text, change.after.subscription_fee.text) == (
        "99.00",
        "195.78",
    )
    assert change.difference.text == "96.78"
    assert (change.next_period, change.next_fee.text) == (JUNE, "299.00")
    assert change.next_monthly_credits.text == "300.00"


def test_a_downgrade_moves_nothing_of_this_period() -> None:
    account = open_account(plan_code="team")
    change = preview(account.pk, "professional")
    assert (change.is_now, change.effective_at, change.lines) == (False, MAY.end, ())
    assert change.before == change.after
    assert (change.next_period, change.next_fee.text) == (JUNE, "99.00")


def test_a_preview_changes_nothing() -> None:
    account = open_account(plan_code="professional")
    rows = list(Subscription.objects.values())
    entries, events = list(CreditEntry.objects.values()), list(Event.objects.values())
    preview(account.pk, "team")
    with transaction.atomic():
        preview(account.pk, "developer")
    assert list(Subscription.objects.values()) == rows
    assert list(CreditEntry.objects.values()) == entries
    assert list(Event.objects.values()) == events


def test_what_is_refused_is_refused_in_the_preview() -> None:
    account = open_account(plan_code="professional")
    with pytest.raises(SubscriptionRefusedError, match="Contact sales"):
        preview(account.pk, "enterprise")
    with pytest.raises(Plan.DoesNotExist):
        preview(account.pk, "no-such-plan")


def test_the_forecast_goes_on_with_what_is_used() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, NOON, cpu_s=20_000_000)
    change = preview(account.pk, "team")
    # 240.00 in 16 days, 465.00 in 31; less the credits.
    assert change.after.forecast_total.amount > change.after.total_amount.amount
    assert change.after.monthly_credits.text == "196.77"


def told(state: Statement) -> tuple[Money, Money, Money]:
    return state.totals.subscription_fee, state.totals.total_amount, state.totals.amount_due


class PreviewIsOutcome(TestCase):
    """The preview of any change on any day is what the change does, to the cent."""

    @settings(deadline=None)
    @given(
        first=st.sampled_from(["", "developer", "professional", "team"]),
        second=st.sampled_from(["developer", "professional", "team"]),
        first_interval=st.sampled_from(Interval),
        interval=st.sampled_from(Interval),
        started=st.integers(0, 10 * 86_400),
        chosen=st.integers(1, 20 * 86_400),
        cpu_s=st.integers(0, 50_000_000),
    )
    def test_a_preview_is_what_happens(
        self,
        first: str,
        second: str,
        first_interval: Interval,
        interval: Interval,
        started: int,
        chosen: int,
        cpu_s: int,
    ) -> None:
        Plan.objects.filter(code="professional").update(annual_fee=990)
        Plan.objects.filter(code="team").update(annual_fee=Decimal("2990.01"))
        Plan.objects.filter(code="developer").update(annual_fee=0)
        account = services.open_account(name="Ada", now=OPENED)
        begin = OPENED + timedelta(seconds=started)
        now = begin + timedelta(seconds=chosen)
        if cpu_s:
            record_usage(account.pk, OPENED, cpu_s=cpu_s)
        if first:
            services.choose_plan(account.pk, plan_code=first, now=begin, interval=first_interval)
        before = preview_period(account, MAY)
        change = services.preview_plan_change(
            account.pk, plan_code=second, now=now, interval=interval
        )
        row = services.choose_plan(account.pk, plan_code=second, now=now, interval=interval)
        after = preview_period(account, MAY)

        expected = change.before, change.after
        shown = [(each.subscription_fee, each.total_amount, each.amount_due) for each in expected]
        assert shown == [told(before), told(after)]
        assert Money.total((line.amount for line in change.lines), "USD") == change.difference
        assert change.effective_at == max(row.started_at, now.replace(microsecond=0))
        if not (cpu_s or after.fees):
            return
        invoice = bill(account)
        assert invoice.total_amount == change.after.total_amount.amount
        assert invoice.subscription_fee == change.after.subscription_fee.amount


def changes() -> list[dict[str, object]]:
    events = Event.objects.filter(type=EventType.SUBSCRIPTION_CHANGED).order_by("created_at")
    return [event.data for event in events]


def test_each_change_is_told_once_whoever_makes_it() -> None:
    account = open_account(plan_code="professional")
    for _ in range(2):
        services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
        services.cancel_subscription(account.pk, now=MIDDLE + timedelta(hours=1))
        services.resume_subscription(account.pk, now=MIDDLE + timedelta(hours=2))
    team = {
        "plan": "team",
        "interval": "monthly",
        "fee": "299.00",
        "currency": "USD",
        "started_at": "2026-05-17T00:00:00Z",
        "ends_at": None,
    }
    ending = {**team, "ends_at": "2026-06-01T00:00:00Z"}
    assert changes()[1:4] == [
        {"current": team, "next": None},
        {"current": ending, "next": None},
        {"current": team, "next": None},
    ]


def test_a_change_that_waits_says_what_comes_next() -> None:
    account = open_account(plan_code="team")
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE)
    services.choose_plan(account.pk, plan_code="professional", now=MIDDLE + timedelta(1))
    [_, waiting] = changes()
    assert waiting["next"] == {
        "plan": "professional",
        "interval": "monthly",
        "fee": "99.00",
        "currency": "USD",
        "started_at": "2026-06-01T00:00:00Z",
        "ends_at": None,
    }


def test_two_changes_at_one_moment_are_both_told() -> None:
    account = open_account(plan_code="professional")
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    services.cancel_subscription(account.pk, now=MIDDLE)
    assert len(changes()) == 3
