from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from billing.mirrored_fees import FeeDifferenceKind, fee_differences
from billing.models import Account, Invoice, Plan, Subscription
from billing.services import (
    SubscriptionRefusedError,
    cancel_subscription,
    cancel_subscription_now,
    choose_plan,
    resume_subscription,
)
from payments.models import Difference, FeeSubscription, Payment, WebhookEvent
from payments.services.customers import ensure_customer
from payments.services.events import apply_event, due_events, receive_event
from payments.services.providing import provider
from payments.services.subscriptions import CLOCKS_APART, bring_subscriptions_in_step
from tests.billing.usage import OPENED, open_account
from tests.local_stripe import LocalStripe

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
STARTED = OPENED + timedelta(days=4, hours=10)
PRO, TEAM = "price_soulbox_pro_monthly", "price_soulbox_team_monthly"


@pytest.fixture(autouse=True)
def _provider_collects(stripe: LocalStripe) -> None:
    Plan.objects.filter(code="professional").update(stripe_price_id=PRO)
    Plan.objects.filter(code="team").update(stripe_price_id=TEAM)
    stripe.set_clock(STARTED.timestamp())


def subscribed(stripe: LocalStripe, plan: str = "professional") -> Account:
    account = open_account()
    stripe.attach(ensure_customer(account.pk, now=STARTED))
    choose_plan(account.pk, plan_code=plan, now=STARTED - CLOCKS_APART)
    in_step(stripe, STARTED)
    return account


def in_step(stripe: LocalStripe, now: datetime) -> None:
    """Let the clocks of both sides come to `now`, and do what sweeps and webhooks do."""
    stripe.advance(to=now.timestamp())
    for _ in range(2):
        bring_subscriptions_in_step(now)
        for event in provider().events(since=OPENED, only_undelivered=False):
            receive_event(event, source=WebhookEvent.Source.FETCHED, now=now)
        for event_id in due_events(now):
            apply_event(event_id, now=now)


def fees_of(account: Account) -> list[Invoice]:
    return list(account.invoices.filter(kind="subscription").order_by("pk"))


def wrong_fees(account: Account, now: datetime) -> list[FeeDifferenceKind]:
    return [difference.kind for difference in fee_differences(account.pk, now=now)]


def test_a_plan_with_a_price_id_has_a_subscription_at_the_provider(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    fees = FeeSubscription.objects.get()
    [made] = stripe.log("PostSubscriptions")
    assert made["given"]["items"] == [{"price": PRO}]
    assert made["given"]["metadata"]["tier"] == "professional"
    assert (fees.status, fees.asked_price_id) == ("active", PRO)
    [fee] = fees_of(account)
    assert (fee.status, fee.total_amount) == ("paid", Decimal(99))
    assert fee.number
    assert fee.number.endswith("-0001")
    assert Payment.objects.get().amount == Decimal(99)
    assert Payment.objects.get().allocations.get().invoice == fee


def test_the_accounts_periods_are_the_providers(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    account.refresh_from_db()
    assert account.open_period_start == OPENED
    assert account.open_period_end == STARTED
    fees = FeeSubscription.objects.get()
    assert (fees.period_start, fees.period_end) == (STARTED, STARTED.replace(month=6))


def test_a_second_look_asks_for_nothing(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    for hours in range(1, 30, 7):
        in_step(stripe, STARTED + timedelta(hours=hours))
    assert len(stripe.log("PostSubscriptions")) == 1
    assert stripe.log("PostSubscriptionsSubscriptionExposedId") == []
    assert len(fees_of(account)) == 1


@pytest.mark.parametrize("kind", ["timeout_after_success", "reset_before", "500_after_success"])
def test_an_answer_that_is_lost_makes_no_second_subscription(
    stripe: LocalStripe, kind: str
) -> None:
    account = open_account()
    stripe.attach(ensure_customer(account.pk, now=STARTED))
    choose_plan(account.pk, plan_code="professional", now=STARTED - CLOCKS_APART)
    stripe.fault(kind, "PostSubscriptions", seconds=0.6)
    for minutes in range(0, 10, 2):
        in_step(stripe, STARTED + timedelta(minutes=minutes))
    assert [fee.total_amount for fee in fees_of(account)] == [Decimal(99)]
    assert len(stripe.charges()) == 1


def test_each_months_fee_is_mirrored_and_none_is_asked_for_twice(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    for month in (6, 7, 8):
        in_step(stripe, STARTED.replace(month=month) + timedelta(hours=3))
    assert [fee.total_amount for fee in fees_of(account)] == [Decimal(99)] * 4
    now = STARTED.replace(month=8) + timedelta(hours=3)
    assert wrong_fees(account, now) == []
    assert sum(charge["amount"] for charge in stripe.charges()) == 4 * 9900
    assert not Invoice.objects.exclude(kind="subscription").filter(subscription_fee__gt=0)


def test_an_upgrade_is_charged_by_the_second_at_once(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    later = STARTED + 10 * DAY
    choose_plan(account.pk, plan_code="team", now=later)
    in_step(stripe, later)
    assert FeeSubscription.objects.get().asked_price_id == TEAM
    proration = fees_of(account)[1]
    assert proration.status == "paid"
    assert Decimal(100) < proration.total_amount < Decimal(200)
    assert wrong_fees(account, later) == []
    in_step(stripe, STARTED.replace(month=6) + timedelta(hours=3))
    assert fees_of(account)[2].total_amount == Decimal(299)


def test_a_downgrade_takes_effect_with_the_next_period(stripe: LocalStripe) -> None:
    account = subscribed(stripe, "team")
    later = STARTED + 10 * DAY
    choose_plan(account.pk, plan_code="professional", now=later)
    in_step(stripe, later)
    assert [fee.total_amount for fee in fees_of(account)] == [Decimal(299)]
    now = STARTED.replace(month=6) + timedelta(hours=3)
    in_step(stripe, now)
    assert [fee.total_amount for fee in fees_of(account)] == [Decimal(299), Decimal(99)]
    assert wrong_fees(account, now) == []
    assert not Difference.objects.exists()


def test_a_cancellation_at_the_end_ends_it_there_and_can_be_taken_back(
    stripe: LocalStripe,
) -> None:
    account = subscribed(stripe)
    cancel_subscription(account.pk, now=STARTED + DAY)
    in_step(stripe, STARTED + DAY)
    assert provider().subscription(sub_id()).cancels_at_period_end
    resume_subscription(account.pk, now=STARTED + 2 * DAY)
    in_step(stripe, STARTED + 2 * DAY)
    assert not provider().subscription(sub_id()).cancels_at_period_end
    cancel_subscription(account.pk, now=STARTED + 3 * DAY)
    in_step(stripe, STARTED + 3 * DAY)
    now = STARTED.replace(month=6) + timedelta(hours=3)
    in_step(stripe, now)
    assert FeeSubscription.objects.get().ended_at
    assert len(fees_of(account)) == 1
    assert wrong_fees(account, now) == []
    assert not Difference.objects.exists()


def test_a_cancellation_at_once_gives_the_unused_fee_back(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    later = STARTED + 10 * DAY
    cancel_subscription_now(account.pk, now=later)
    # To the end of its window it was used.
    in_step(stripe, later + timedelta(minutes=16))
    assert FeeSubscription.objects.get().ended_at
    [fee] = fees_of(account)
    note = fee.credit_notes.get()
    # 21 of 31 days.
    assert abs(note.total - Decimal(99) * 21 / 31) < 1
    assert wrong_fees(account, later + DAY) == []


def test_what_is_cancelled_at_the_provider_is_cancelled_here(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    stripe.ask("POST", f"subscriptions/{sub_id()}/cancel", at_period_end=True)
    in_step(stripe, STARTED + DAY)
    plan = Subscription.objects.get(account=account)
    assert plan.expires_at == STARTED.replace(month=6)
    stripe.ask("POST", f"subscriptions/{sub_id()}/cancel", at_period_end=False)
    in_step(stripe, STARTED + 2 * DAY)
    plan.refresh_from_db()
    assert plan.expires_at <= STARTED + 2 * DAY + timedelta(minutes=15)
    assert FeeSubscription.objects.get().ended_at


def test_enterprise_is_refused_and_developer_needs_none(stripe: LocalStripe) -> None:
    account = open_account()
    with pytest.raises(SubscriptionRefusedError, match="Enterprise"):
        choose_plan(account.pk, plan_code="enterprise", now=STARTED)
    choose_plan(account.pk, plan_code="developer", now=STARTED)
    in_step(stripe, STARTED)
    assert not FeeSubscription.objects.exists()
    assert stripe.log("PostSubscriptions") == []


def sub_id() -> str:
    return str(FeeSubscription.objects.get().provider_id)


LOST = ["timeout_before", "timeout_after_success", "500_before", "500_after_success", "429", "409"]


def change_with(stripe: LocalStripe, kind: str, later: datetime) -> None:
    stripe.fault(kind, "PostSubscriptionsSubscriptionExposedId", seconds=0.6)
    for minutes in range(0, 6, 2):
        in_step(stripe, later + timedelta(minutes=minutes))


@pytest.mark.parametrize("kind", LOST)
def test_an_upgrade_without_an_answer_is_made_up_for(stripe: LocalStripe, kind: str) -> None:
    account = subscribed(stripe)
    later = STARTED + 10 * DAY
    choose_plan(account.pk, plan_code="team", now=later)
    change_with(stripe, kind, later)
    assert provider().subscription(sub_id()).price_id == TEAM
    assert FeeSubscription.objects.get().paid_price_id == TEAM
    assert len(fees_of(account)) == len(stripe.charges()) == 2
    assert not Difference.objects.exists()


@pytest.mark.parametrize("kind", LOST)
def test_a_cancellation_without_an_answer_is_made_up_for(stripe: LocalStripe, kind: str) -> None:
    account = subscribed(stripe)
    later = STARTED + 10 * DAY
    cancel_subscription(account.pk, now=later)
    change_with(stripe, kind, later)
    assert Subscription.objects.get(account=account).expires_at == STARTED.replace(month=6)
    assert provider().subscription(sub_id()).cancels_at_period_end
    # What staff does there afterwards is followed all the same.
    stripe.ask("POST", f"subscriptions/{sub_id()}/cancel", at_period_end=False)
    in_step(stripe, later + DAY)
    assert FeeSubscription.objects.get().ended_at


def test_a_plan_that_goes_back_and_forth_is_the_last_one_at_the_provider(
    stripe: LocalStripe,
) -> None:
    account = subscribed(stripe, "team")
    for hours, plan in enumerate(("professional", "team", "professional")):
        later = STARTED + 10 * DAY + timedelta(hours=hours)
        choose_plan(account.pk, plan_code=plan, now=later)
        in_step(stripe, later)
    assert provider().subscription(sub_id()).price_id == PRO


def test_a_cancellation_is_taken_back_and_made_again_in_one_minute(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    for seconds, change in enumerate(
        (cancel_subscription, resume_subscription, cancel_subscription)
    ):
        later = STARTED + DAY + timedelta(seconds=seconds)
        change(account.pk, now=later)
        in_step(stripe, later)
    assert Subscription.objects.get(account=account).expires_at
    assert provider().subscription(sub_id()).cancels_at_period_end


def test_a_fee_that_the_provider_never_asked_for_is_listed_once(stripe: LocalStripe) -> None:
    account = subscribed(stripe)
    later = STARTED + 10 * DAY
    # As if its invoice had never come.
    Subscription.objects.filter(account=account).update(started_at=STARTED - 2 * DAY)
    for hours in (1, 2, 3):
        in_step(stripe, later + timedelta(hours=hours))
    difference = Difference.objects.get()
    assert difference.kind == Difference.Kind.SUBSCRIPTION_DIFFERS
    assert "not charged" in difference.theirs
