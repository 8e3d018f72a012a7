from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Case, OuterRef, QuerySet, Subquery, Value, When
from django.http import HttpRequest, HttpResponse

from billing import services
from billing.admin.asking import (
    CheckedForm,
    Question,
    ServicePage,
    ask,
    ask_for_each,
    button,
    choice_field,
    decimal_field,
    integer_field,
    money,
    money_text,
    row_field,
    searched_row_field,
)
from billing.admin.export_tables import SUBSCRIPTIONS
from billing.admin.exporting import Exports
from billing.admin.subscription_list import SubscriptionList
from billing.fees import Interval
from billing.models import Plan, PriceBook, Subscription
from billing.models.plans import INTERVALS

Terms = Mapping[str, Any]

MOST_MONTHS = 120
MOST_TRIAL_DAYS = 366

CANCEL_AT_END = Question(
    title="Cancel to the end",
    text="The subscription ends with what is paid for or committed to: its period, its year, or "
    "its commitment; in a trial, with the trial. Until then it can be resumed.",
    yes="Cancel to the end",
)
CANCEL_NOW = Question(
    title="Cancel now",
    text="The subscription and its billing period end with this window. The fee is charged up to "
    "then, credits that are not earned are taken back, and the final invoice follows after "
    "the grace for late readings. This cannot be taken back.",
    yes="Cancel now",
)
RESUME = Question(
    title="Resume",
    text="A cancellation or a change of plan that has not taken effect is taken back.",
    yes="Resume",
)


class TermsForm(forms.Form):
    """A plan, and what was agreed instead of its own terms."""

    plan = row_field("Plan", Plan.objects.all())
    interval = choice_field("Billing", INTERVALS, initial=Interval.MONTHLY.value)
    fee = decimal_field(
        "Fee", "For a period, or a year of annual billing. Empty: the plan's.", required=False
    )
    price_book = searched_row_field(
        "Price book",
        PriceBook.objects.filter(account__isnull=False),
        Subscription.price_book,
        "An own book of the account. Empty: the plan's.",
        required=False,
    )
    monthly_credits = decimal_field("Monthly credits", "Empty: the plan's.", required=False)
    commitment_minimum = decimal_field(
        "Committed minimum", "At least this is spent in each period.", required=False
    )
    commitment_months = integer_field(
        "Commitment, months",
        "Its term, from the start on.",
        required=False,
        min_value=0,
        max_value=MOST_MONTHS,
    )


class ChangePlanForm(TermsForm):
    """The plan that follows at the end."""


class SubscriptionForm(TermsForm, CheckedForm[Subscription]):
    """An account and the plan it is put on from now on."""

    trial_days = integer_field(
        "Trial days", "Empty: the plan's.", required=False, min_value=0, max_value=MOST_TRIAL_DAYS
    )

    class Meta:
        model = Subscription
        fields = (
            "account",
            "plan",
            "interval",
            "fee",
            "price_book",
            "monthly_credits",
            "commitment_minimum",
            "commitment_months",
        )


def agreed_terms(said: Terms) -> services.AgreedTerms:
    """Return what was agreed, as the service takes it."""
    return services.AgreedTerms(
        fee=said["fee"],
        price_book=said["price_book"],
        monthly_credits=said["monthly_credits"],
        trial_days=said.get("trial_days"),
        commitment_minimum=said["commitment_minimum"],
        commitment_months=said["commitment_months"],
    )


def _end(subscription: Subscription) -> str:
    at = subscription.expires_at
    return f"It ends at {at:%Y-%m-%d %H:%M}." if at else "It goes on."


@admin.register(Subscription)
class SubscriptionAdmin(Exports, SubscriptionList, ServicePage[Subscription]):
    """Who is on which plan. Adding one puts the account on it now, in place of the old."""

    form = SubscriptionForm
    export_tables = (SUBSCRIPTIONS,)
    own_fee = money("fee", of="account")
    own_credits = money("monthly_credits", of="account")
    list_display = (
        "account",
        "plan",
        "own_fee",
        "interval",
        "state",
        "started_at",
        "expires_at",
        "commitment",
        "follows",
    )
    autocomplete_fields = ("account",)
    date_hierarchy = "started_at"
    actions = ("cancel_chosen", "cancel_chosen_now", "resume_chosen", "change_chosen")
    actions_detail = (
        {"title": "Change", "items": ["cancel", "cancel_now", "resume", "change_plan"]},
    )
    add_fieldsets = (
        (None, {"fields": ("account", ("plan", "interval"))}),
        (
            "What was agreed instead of the plan's own terms",
            {"fields": (("fee", "monthly_credits"), ("price_book", "trial_days"))},
        ),
        ("Commitment", {"fields": (("commitment_minimum", "commitment_months"),)}),
    )
    fieldsets = (
        (None, {"fields": (("account", "plan"), ("state", "follows"))}),
        (
            "Terms",
            {
                "fields": (
                    ("interval", "own_fee"),
                    ("own_credits", "credit_rollover_periods"),
                    ("price_book", "commitment"),
                )
            },
        ),
        ("Times", {"fields": (("started_at", "trial_ends_at"), ("expires_at", "ends_period"))}),
    )
    readonly_fields = ("state", "follows", "own_fee", "own_credits", "commitment")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """Return the subscriptions with what they are now and what follows them."""
        now = datetime.now(UTC)
        following = Subscription.objects.filter(
            account=OuterRef("account"), started_at__gte=OuterRef("expires_at")
        ).order_by("started_at")
        return (
            super()
            .get_queryset(request)
            .annotate(
                state_now=Case(
                    When(started_at__gt=now, then=Value("to come")),
                    When(expires_at__lte=now, then=Value("over")),
                    When(ends_period=True, then=Value("cancelled now")),
                    When(expires_at__isnull=False, then=Value("ends")),
                    When(trial_ends_at__gt=now, then=Value("trial")),
                    default=Value("active"),
                ),
                following_plan=Subquery(following.values("plan__name")[:1]),
            )
        )

    def has_change_permission(self, request: HttpRequest, obj: Subscription | None = None) -> bool:
        """Return that nobody changes a subscription: another takes its place."""
        del request, obj
        return False

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them cancel, resume and change."""
        return request.user.has_perm("billing.change_subscription")

    def save_model(
        self,
        request: HttpRequest,
        obj: Subscription,
        form: forms.ModelForm[Subscription],
        change: Any,
    ) -> None:
        """Subscribe through the service."""
        del request, change
        said = form.cleaned_data
        subscribed = services.subscribe(
            obj.account_id,
            plan_code=said["plan"].code,
            now=datetime.now(UTC),
            interval=Interval(said["interval"]),
            agreed=agreed_terms(said),
        )
        # The admin goes on with the object it made: bring that up to what was saved.
        obj.__dict__.update(subscribed.__dict__)

    @admin.display(description="state", ordering="state_now")
    def state(self, subscription: Subscription) -> str:
        """Return whether it is to come, in force, ends, or is over."""
        state = str(getattr(subscription, "state_now", ""))
        if state == "trial" and subscription.trial_ends_at:
            return f"{state} to {subscription.trial_ends_at:%Y-%m-%d}"
        return state

    @admin.display(description="followed by", empty_value="–")
    def follows(self, subscription: Subscription) -> str | None:
        """Return the plan that takes over."""
        plan: str | None = getattr(subscription, "following_plan", None)
        return plan

    @admin.display(description="commitment", empty_value="–")
    def commitment(self, subscription: Subscription) -> str | None:
        """Return the committed minimum and its term."""
        if subscription.commitment_minimum is None:
            return None
        minimum = money_text(subscription.commitment_minimum, subscription.account.currency)
        return f"{minimum} a period, {subscription.commitment_months} months"

    @button("Cancel to the end", right="billing.change_subscription")
    def cancel(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Let it end with what is paid for."""
        return ask(self, request, subscription, CANCEL_AT_END, partial(_cancel, subscription))

    @button("Cancel now", right="billing.change_subscription")
    def cancel_now(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """End it, and its billing period, with this window."""
        return ask(self, request, subscription, CANCEL_NOW, partial(_cancel_now, subscription))

    @button("Resume", right="billing.change_subscription")
    def resume(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Take back what has not taken effect."""
        return ask(self, request, subscription, RESUME, partial(_resume, subscription))

    @button("Change plan at the end", right="billing.change_subscription")
    def change_plan(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Let another plan follow."""
        work = partial(_change_plan, subscription)
        return ask(self, request, subscription, _change_question(), work)

    @admin.action(description="Cancel to the end", permissions=["write"])
    def cancel_chosen(
        self, request: HttpRequest, rows: QuerySet[Subscription]
    ) -> HttpResponse | None:
        """Let the chosen ones end with what is paid for."""
        return ask_for_each(self, request, rows, CANCEL_AT_END, _cancel)

    @admin.action(description="Cancel now", permissions=["write"])
    def cancel_chosen_now(
        self, request: HttpRequest, rows: QuerySet[Subscription]
    ) -> HttpResponse | None:
        """End the chosen ones, and their billing periods, with this window."""
        return ask_for_each(self, request, rows, CANCEL_NOW, _cancel_now)

    @admin.action(description="Resume", permissions=["write"])
    def resume_chosen(
        self, request: HttpRequest, rows: QuerySet[Subscription]
    ) -> HttpResponse | None:
        """Take back what has not taken effect."""
        return ask_for_each(self, request, rows, RESUME, _resume)

    @admin.action(description="Change plan at the end", permissions=["write"])
    def change_chosen(
        self, request: HttpRequest, rows: QuerySet[Subscription]
    ) -> HttpResponse | None:
        """Let another plan follow the chosen ones."""
        return ask_for_each(self, request, rows, _change_question(), _change_plan)


def _change_question() -> Question:
    return Question(
        title="Change plan at the end",
        text="Another plan takes over when what is paid for or committed to ends. A change or a "
        "cancellation that waits is replaced.",
        yes="Change plan",
        form_class=ChangePlanForm,
    )


def _on(
    subscription: Subscription, work: Callable[..., Subscription], **options: Any
) -> Subscription:
    """Call a service about an account's subscription. Raises SubscriptionRefusedError.

    Services work on what the account is on now, so a row that is over is refused.
    """
    now = datetime.now(UTC)
    is_over = subscription.expires_at is not None and subscription.expires_at <= now
    if is_over or subscription.started_at > now:
        raise services.SubscriptionRefusedError(
            f"{subscription} is over or has not begun. Choose the one that the account is on now."
        )
    return work(subscription.account_id, now=now, **options)


def _cancel(subscription: Subscription, said: Terms) -> str:
    del said
    return _end(_on(subscription, services.cancel_subscription))


def _cancel_now(subscription: Subscription, said: Terms) -> str:
    del said
    return _end(_on(subscription, services.cancel_subscription_now))


def _resume(subscription: Subscription, said: Terms) -> str:
    del said
    return _end(_on(subscription, services.resume_subscription))


def _change_plan(subscription: Subscription, said: Terms) -> str:
    following = _on(
        subscription,
        services.change_plan_at_end,
        plan_code=said["plan"].code,
        interval=Interval(said["interval"]),
        agreed=agreed_terms(said),
    )
    return f"{said['plan']} follows at {following.started_at:%Y-%m-%d %H:%M}."
