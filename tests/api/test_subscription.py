from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.test import RequestFactory
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.fees import Interval
from billing.models import Account, Event, Membership, Plan, Subscription
from tests.api.calling import Api
from tests.billing.usage import MAY, NOON, open_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _noon(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)


def test_it_says_what_the_account_is_on(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    api = Api.by_key(open_account(plan_code="team").pk)
    api.get("subscription")
    with django_assert_num_queries(5):
        told = api.get("subscription").json()
    assert told["following"] is None
    assert told["current"]["plan"] == {"code": "team", "name": "Team"}
    assert told["current"]["interval"] == "monthly"
    assert set(told["period"]) == {"start", "end"}


def test_a_preview_changes_nothing_and_comes_to_what_the_change_does() -> None:
    account = open_account(plan_code="professional")
    api = Api.by_key(account.pk)
    asked = {"plan": "team", "preview": True}
    before = list(Subscription.objects.order_by("pk").values())
    preview = api.post("subscription", asked).json()["preview"]
    assert list(Subscription.objects.order_by("pk").values()) == before
    assert api.post("subscription", asked, **{"Idempotency-Key": "a"}).json()["preview"] == preview
    assert list(Subscription.objects.order_by("pk").values()) == before
    changed = api.post("subscription", {"plan": "team"}, **{"Idempotency-Key": "b"})
    again = api.post("subscription", {"plan": "team"}, **{"Idempotency-Key": "b"})
    assert (again["Idempotency-Replayed"], again.json()) == ("true", changed.json())
    assert changed.status_code == 200
    total = api.get("usage/current").json()["total_amount"]
    assert total == preview["after"]["total_amount"]


def test_a_plan_is_left_and_taken_up_again() -> None:
    api = Api.by_key(open_account(plan_code="team").pk)
    cancelled = api.post("subscription/cancel")
    assert cancelled.json()["current"]["expires_at"] is not None
    resumed = api.post("subscription/resume")
    assert resumed.json()["current"]["expires_at"] is None
    ended = api.post("subscription/cancel", {"now": True})
    # With the quarter of an hour that usage is counted by.
    assert ended.json()["current"]["expires_at"] == "2026-05-10T12:15:00Z"
    # The beginning too.
    assert Event.objects.filter(type="subscription.changed").count() == 4


def test_an_annual_customer_stays_annual_unless_said() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", interval=Interval.ANNUAL, now=NOON)
    api = Api.by_key(account.pk)
    same = api.post("subscription", {"plan": "team"})
    assert same.json()["subscription"]["current"]["interval"] == "annual"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"plan": "nonsense"}, 400, "plan"),
        ({"plan": "team", "interval": "daily"}, 400, "interval"),
        ({"plan": "team", "fee": "0"}, 400, "fee"),
        ({"plan": "team", "account": "x", "preview": True}, 400, "account"),
        ({}, 400, "plan"),
        ({"plan": "enterprise"}, 409, None),
    ],
)
def test_what_cannot_be_chosen_is_refused(body: Any, status: int, field: str | None) -> None:
    account = open_account(plan_code="team")
    answer = Api.by_key(account.pk).post("subscription", body)
    assert answer.status_code == status, answer.content
    if field:
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert Subscription.objects.get().plan.code == "team"


def test_an_account_that_closes_takes_no_plan() -> None:
    account = open_account(plan_code="team")
    Account.objects.filter(pk=account.pk).update(
        closing_at=NOON, ends_at=NOON + timedelta(minutes=15)
    )
    answer = Api.by_member(account, Membership.Role.OWNER).post(
        "subscription", {"plan": "professional"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "account_closed")


CHANGES: dict[str, Callable[[Account], Any]] = {
    "chosen": lambda one: services.choose_plan(
        one.pk, plan_code="team", interval=Interval.MONTHLY, now=NOON
    ),
    "cancelled": lambda one: services.cancel_subscription(one.pk, now=NOON),
    "cancelled at once": lambda one: services.cancel_subscription_now(one.pk, now=NOON),
    "closing": lambda one: services.close_account(one.pk, now=NOON),
    "another time zone": lambda one: services.change_cycle(
        one.pk, time_zone="Asia/Tokyo", now=NOON
    ),
    "renamed": lambda one: rename_plan(one.subscriptions.get().plan),
}


def rename_plan(plan: Plan) -> None:
    plan.name = "Another"
    page: Any = admin.site.get_model_admin(Plan)
    page.save_model(RequestFactory().post("/"), plan, page.form(instance=plan), change=True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_is_forgotten_by_every_change(
    change: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account = open_account(plan_code="professional")
    api = Api.by_key(account.pk)
    before = api.get("subscription").json()
    # Only whose key it is.
    with django_assert_num_queries(1):
        assert api.get("subscription").json() == before
    CHANGES[change](account)
    after = api.get("subscription").json()
    assert after == api.get("subscription").json()
    # A migration made it, for every test.
    Plan.objects.filter(code="professional").update(name="Professional")
    assert (after == before) == (change == "another time zone")


@pytest.mark.django_db(transaction=True)
def test_what_is_kept_does_not_outlive_what_it_says(
    monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[datetime], None]
) -> None:
    api = Api.by_key(open_account(plan_code="team").pk)
    kept: list[int] = []

    def keep(_account: object, _kind: object, seconds: Callable[[Any], int], make: Any) -> Any:
        made = make()
        kept.append(seconds(made))
        return made

    monkeypatch.setattr("billing.api.subscription.cached", keep)
    api.get("subscription")
    set_clock(MAY.end - timedelta(seconds=7, milliseconds=500))
    api.get("subscription")
    assert kept == [3600, 7]
