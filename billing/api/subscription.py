"""The plan that the account is on, and what a customer may do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.problems import Problem, conflict, field_problem
from billing.api.views import AccountView
from billing.caching import SUBSCRIPTION_S, Kind, cached
from billing.facts import period_containing
from billing.fees import Interval
from billing.models import Account, Plan
from billing.queries import subscriptions_around
from billing.serializers.subscriptions import (
    CancellationSerializer,
    ChoiceSerializer,
    PlanChangeSerializer,
    SubscriptionOrChangeSerializer,
    SubscriptionSerializer,
)
from billing.services import (
    AccountClosingError,
    SubscriptionRefusedError,
    cancel_subscription,
    cancel_subscription_now,
    choose_plan,
    preview_plan_change,
    resume_subscription,
)


class SubscriptionDetail(AccountView):
    """What the account is on, and the change of it."""

    @extend_schema(operation_id="subscription", responses=SubscriptionSerializer)
    def get(self, request: Request) -> Response:
        """Return the plan in force, with its terms, and the one that takes over next.

        It is kept for up to an hour, and no longer than it holds.
        """
        del request
        account_id, now = self.account_id, datetime.now(UTC)
        return Response(
            cached(
                account_id,
                Kind.SUBSCRIPTION,
                lambda shown: min(SUBSCRIPTION_S, _seconds_left(shown, now=now)),
                lambda: _shown(account_id, now=now),
            )
        )

    @extend_schema(
        operation_id="subscription_change",
        request=ChoiceSerializer,
        responses=SubscriptionOrChangeSerializer,
        examples=[
            OpenApiExample(
                "What it would cost", value={"plan": "team", "preview": True}, request_only=True
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Put the account on a plan: a dearer one at once, a cheaper one when this one is over."""
        asked = ChoiceSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        said, now = asked.validated_data, datetime.now(UTC)
        choice: dict[str, Any] = {
            "plan_code": said["plan"],
            "interval": Interval(said.get("interval") or _interval_of(self.account_id, now=now)),
            "now": now,
        }
        if said["preview"]:
            change = _refused_in_words(lambda: preview_plan_change(self.account_id, **choice))
            return Response({"subscription": None, "preview": PlanChangeSerializer(change).data})
        _refused_in_words(lambda: choose_plan(self.account_id, **choice))
        return Response({"subscription": _shown(self.account_id, now=now), "preview": None})


class SubscriptionCancellation(AccountView):
    """Lets the plan end."""

    @extend_schema(
        operation_id="subscription_cancel",
        request=CancellationSerializer,
        responses=SubscriptionSerializer,
    )
    def post(self, request: Request) -> Response:
        """End the plan with what is paid for; or, with `now`, at once. Safe to repeat."""
        asked = CancellationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        now = datetime.now(UTC)
        cancel = cancel_subscription_now if asked.validated_data["now"] else cancel_subscription
        _refused_in_words(lambda: cancel(self.account_id, now=now))
        return Response(_shown(self.account_id, now=now))


class SubscriptionResumption(AccountView):
    """Takes a cancellation, or a change that waits, back."""

    @extend_schema(
        operation_id="subscription_resume", request=None, responses=SubscriptionSerializer
    )
    def post(self, request: Request) -> Response:
        """Stay on the plan. Safe to repeat."""
        now = datetime.now(UTC)
        _refused_in_words(lambda: resume_subscription(self.account_id, now=now))
        return Response(_shown(self.account_id, now=now))


def _shown(account_id: UUID, *, now: datetime) -> dict[str, Any]:
    current, following = subscriptions_around(account_id, now=now)
    period = period_containing(Account.objects.get(pk=account_id), now)
    found = {"current": current, "following": following, "period": period}
    return dict(SubscriptionSerializer(found).data)


def _seconds_left(shown: Mapping[str, Any], *, now: datetime) -> int:
    """Return for how many whole seconds what is shown still holds."""
    current, following = shown["current"], shown["following"]
    moments = (
        shown["period"]["end"],
        current and current["expires_at"],
        following and following["started_at"],
    )
    until = min(datetime.fromisoformat(moment) for moment in moments if moment)
    return (until - now) // timedelta(seconds=1)


def _interval_of(account_id: UUID, *, now: datetime) -> str:
    """Return how often the account pays its fee now, so that it stays so unless said."""
    current, _following = subscriptions_around(account_id, now=now)
    return current.interval if current else Interval.MONTHLY


def _refused_in_words(do: Callable[[], Any]) -> Any:
    """Return what the service does. Raises Problem or ValidationError where it refuses."""
    try:
        return do()
    except Plan.DoesNotExist:
        raise field_problem(
            "plan", "There is no such plan. `plans` lists those on offer."
        ) from None
    except AccountClosingError as error:
        raise Problem(409, "account_closed", str(error)) from None
    except SubscriptionRefusedError as refusal:
        raise conflict(str(refusal)) from None
