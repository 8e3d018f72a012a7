"""The plan: what the account is on, what else is offered, and what a change would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.forms import CharField, ChoiceField
from django.http import Http404, HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.fees import Interval
from billing.models import Plan, Subscription
from billing.money import Money
from billing.queries import offered_plans, subscriptions_around
from billing.services import (
    SubscriptionRefusedError,
    cancel_subscription,
    choose_plan,
    preview_plan_change,
    resume_subscription,
)
from metering.meters import Meter
from payments.models import PaymentMethod
from soulbox.portal.forms import PortalForm
from soulbox.portal.pages import MemberView
from soulbox.portal.words import METER_NAMES

INTERVALS = {Interval.MONTHLY: "a month", Interval.ANNUAL: "a year"}
LINE_NAMES: Mapping[str, str] = {
    "fee": "{plan} plan",
    "unused_fee": "{plan} plan, unused part of the year",
    "true_up": "{plan} plan, up to the committed minimum",
    "fee_discount": "Discount on the fee",
}


class PlanForm(PortalForm):
    """Which plan, billed how often."""

    plan = CharField(max_length=50)
    interval = ChoiceField(
        choices=[(interval.value, words) for interval, words in INTERVALS.items()]
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan that can be chosen, its fees by interval and how the account stands to it."""

    plan: Plan
    fees: list[tuple[str, Money, str]]
    is_current: bool
    prices: list[tuple[str, str]]


class PlanPage(MemberView):
    """What the account is on, and what else there is."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        del request
        current, following = subscriptions_around(self.account_id, now=self.now)
        return self.page(
            "portal/plan.html",
            current=current,
            following=following,
            every=INTERVALS[Interval(current.interval)] if current else "",
            offers=[_offer(plan, current) for plan in offered_plans(now=self.now)],
            currency=self.account.currency,
        )


class PlanPreview(MemberView):
    """What choosing a plan would cost; nothing is changed by it."""

    needs = {"GET": Scope.WRITE}

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the change, with a button that makes it."""
        plan_code, interval = _asked(request)
        try:
            change = preview_plan_change(
                self.account_id, plan_code=plan_code, interval=interval, now=self.now
            )
        except Plan.DoesNotExist:
            raise Http404 from None
        except SubscriptionRefusedError as refusal:
            return self.back("portal:plan", str(refusal), is_error=True)
        cards = PaymentMethod.objects.filter(account=self.account_id, removed_at__isnull=True)
        return self.page(
            "portal/plan_preview.html",
            change=change,
            lines=[
                (LINE_NAMES[line.kind].format(plan=line.plan), line.period, line.amount)
                for line in change.lines
            ],
            every=INTERVALS[change.interval],
            has_method=cards.exists(),
        )


class PlanChange(MemberView):
    """Puts the account on a plan. Safe to repeat, as is what follows."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make the change that was shown."""
        plan_code, interval = _asked(request)
        try:
            chosen = choose_plan(
                self.account_id, plan_code=plan_code, interval=interval, now=self.now
            )
        except Plan.DoesNotExist:
            raise Http404 from None
        except SubscriptionRefusedError as refusal:
            return self.back("portal:plan", str(refusal), is_error=True)
        if chosen.started_at > self.now:
            told = f"You change to {chosen.plan} when what is paid for ends."
        else:
            told = f"You are on {chosen.plan}."
        return self.back("portal:plan", told)


class PlanCancel(MemberView):
    """Lets the plan end with what is paid for."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Cancel to the end."""
        del request
        try:
            ended = cancel_subscription(self.account_id, now=self.now)
        except SubscriptionRefusedError as refusal:
            return self.back("portal:plan", str(refusal), is_error=True)
        return self.back("portal:plan", f"{ended.plan} ends. Until then you can resume it.")


class PlanResume(MemberView):
    """Takes a cancellation, or a change to come, back."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Go on as before."""
        del request
        try:
            resumed = resume_subscription(self.account_id, now=self.now)
        except SubscriptionRefusedError as refusal:
            return self.back("portal:plan", str(refusal), is_error=True)
        return self.back("portal:plan", f"You stay on {resumed.plan}.")


def _asked(request: HttpRequest) -> tuple[str, Interval]:
    """Return the plan and the interval asked for. Raises Http404: only our own links ask."""
    form = PlanForm(request.POST if request.method == "POST" else request.GET)
    if not form.is_valid():
        raise Http404
    return form.cleaned_data["plan"], Interval(form.cleaned_data["interval"])


def _offer(plan: Plan, current: Subscription | None) -> Offer:
    own = {Interval.MONTHLY: plan.monthly_fee, Interval.ANNUAL: plan.annual_fee}
    is_current = current is not None and current.plan_id == plan.pk
    fees = [
        (interval.value, Money(fee, plan.currency), INTERVALS[interval])
        for interval, fee in own.items()
        if fee is not None
    ]
    return Offer(plan, fees, is_current, _prices(plan))


def _prices(plan: Plan) -> list[tuple[str, str]]:
    """Return the names of the meters with their prices in force, of those that are by the unit."""
    versions = getattr(plan.price_book, "current_versions", [])
    prices = [price for version in versions for price in version.prices.all()]
    return [
        (METER_NAMES[Meter(price.meter)], f"{price.unit_price.normalize():f}")
        for price in prices
        if price.unit_price and price.currency == plan.currency
    ]
