from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import Account, Budget, BudgetCap, Event
from billing.services.own_budgets import MOST_BUDGETS, MOST_MARKS
from tests.api.calling import Api
from tests.billing.test_budgets import budget_of, use
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

BODY = {"name": "Sandboxes", "amount": "1.00", "alert_amounts": ["0.50"], "hard_cap": True}


def capped() -> tuple[Account, Api, dict[str, Any]]:
    """Return an account with 1.20 USD of use and a hard cap at 1.00."""
    account = open_account()
    api = Api.by_key(account.pk)
    made = api.post("budgets", BODY).json()
    use(account, 120)
    services.look_at_caps(NOON)
    return account, api, made


def test_a_budget_is_made_as_asked_or_as_most_have_it() -> None:
    api = Api.by_key(open_account().pk)
    answer = api.post("budgets", BODY)
    assert answer.status_code == 201, answer.content
    assert answer.json() == {
        "id": Budget.objects.get().pk,
        "name": "Sandboxes",
        "amount": "1.00",
        "currency": "USD",
        "thresholds": [50, 80, 100],
        "alert_amounts": ["0.50"],
        "hard_cap": True,
        "is_active": True,
        "is_capping": False,
        "state": None,
        "last_cap": None,
    }
    said = {"name": "Own", "amount": "7", "thresholds": [90, 20, 90], "is_active": False}
    own = api.post("budgets", said).json()
    assert (own["thresholds"], own["hard_cap"], own["is_active"]) == ([20, 90], False, False)
    listed = api.get("budgets").json()["results"]
    assert [row["name"] for row in listed] == ["Own", "Sandboxes"]
    assert listed[0] == own == api.get(f"budgets/{own['id']}").json()


def test_it_says_what_is_spent_and_how_far_the_cap_was_overshot() -> None:
    _, api, made = capped()
    told = api.get(f"budgets/{made['id']}").json()
    assert told["is_capping"]
    assert told["state"] == {
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "cost": "1.20",
        "percent": "120.0",
        "burn_rate": "0.00",
        "looked_at": "2026-05-10T12:00:00Z",
        "read_at": "2026-05-10T12:15:00Z",
    }
    assert told["last_cap"] == {
        "amount": "1.00",
        "period": told["state"]["period"],
        "capped_at": "2026-05-10T12:00:00Z",
        "cost_at_cap": "1.20",
        "cost": "1.20",
        "overshoot": "0.20",
        "overshoot_bound": "0.00",
        "enforcement_seconds": 52,
        "lifted_at": None,
        "lifted_because": "",
    }


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"amount": "1.30"}, "raised"),
        ({"hard_cap": False}, "removed"),
        ({"is_active": False}, "removed"),
    ],
)
def test_a_change_lifts_the_cap_at_once_and_again_changes_nothing(
    change: dict[str, Any], because: str
) -> None:
    _, api, made = capped()
    told, again = (api.send("PATCH", f"budgets/{made['id']}", change).json() for _ in range(2))
    assert told["last_cap"]["lifted_because"] == because
    assert again == told
    assert not told["is_capping"]
    assert Event.objects.filter(type="budget.cap_lifted").count() == 1


def test_a_budget_raised_to_no_more_than_is_spent_goes_on_capping() -> None:
    _, api, made = capped()
    told = api.send("PATCH", f"budgets/{made['id']}", {"amount": "1.20"}).json()
    assert (told["amount"], told["is_capping"]) == ("1.20", True)


def test_a_lowered_budget_caps_though_nothing_new_was_read() -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    made = api.post("budgets", BODY | {"amount": "5.00"}).json()
    use(account, 120)
    services.look_at_caps(NOON)
    assert services.look_at_caps(NOON + timedelta(seconds=15)) == []
    api.send("PATCH", f"budgets/{made['id']}", {"amount": "1.00"})
    services.look_at_caps(NOON + timedelta(seconds=30))
    assert api.get(f"budgets/{made['id']}").json()["is_capping"]


def test_a_budget_that_is_removed_caps_no_more_and_its_cap_is_kept() -> None:
    account, api, made = capped()
    assert api.send("DELETE", f"budgets/{made['id']}").status_code == 204
    assert api.send("DELETE", f"budgets/{made['id']}").status_code == 404
    cap = BudgetCap.objects.get(account=account)
    assert (cap.budget, cap.budget_name, cap.lifted_because) == (None, "Sandboxes", "removed")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1.001"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "1" * 17}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"thresholds": []}, "thresholds"),
        ({"thresholds": [0]}, "thresholds.0"),
        ({"thresholds": [1001]}, "thresholds.0"),
        ({"thresholds": list(range(1, MOST_MARKS + 2))}, "thresholds"),
        ({"alert_amounts": ["0"]}, "alert_amounts"),
        ({"alert_amounts": ["1.001"]}, "alert_amounts"),
        ({"hard_cap": "perhaps"}, "hard_cap"),
        # What is read-only, or another's to say.
        ({"currency": "EUR"}, "currency"),
        ({"account": "x"}, "account"),
        ({"state": {}}, "state"),
        ({"is_capping": False}, "is_capping"),
        ({"looked_at": None}, "looked_at"),
        ({"id": 7}, "id"),
    ],
)
def test_what_is_no_good_is_named(said: dict[str, Any], field: str) -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    kept = budget_of(account, "3")
    for answer in (
        api.post("budgets", {"name": "New", "amount": "1.00"} | said),
        api.send("PATCH", f"budgets/{kept.pk}", said),
    ):
        assert answer.status_code == 400, answer.content
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert list(Budget.objects.values_list("name", "amount")) == [("Sandboxes", 3)]


def test_a_name_is_a_budgets_own() -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    first = budget_of(account)
    second = budget_of(account, name="Other")
    for answer in (
        api.post("budgets", {"name": first.name, "amount": "2"}),
        api.send("PATCH", f"budgets/{second.pk}", {"name": first.name}),
    ):
        assert answer.json()["errors"][0]["detail"] == "Another budget has this name."
    same = api.send("PATCH", f"budgets/{first.pk}", {"name": first.name})
    assert same.status_code == 200
    assert api.post("budgets", {}).json()["errors"][0]["field"] == "name"


def test_an_account_has_so_many_budgets_at_most() -> None:
    account = open_account()
    for number in range(MOST_BUDGETS):
        budget_of(account, name=str(number))
    answer = Api.by_key(account.pk).post("budgets", BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert Budget.objects.count() == MOST_BUDGETS


def test_anothers_budget_is_not_found() -> None:
    theirs = budget_of(open_account("Ada"))
    api = Api.by_key(open_account("Eve").pk)
    path = f"budgets/{theirs.pk}"
    for answer in (
        api.get(path),
        api.send("PATCH", path, {"amount": "9"}),
        api.send("DELETE", path),
    ):
        assert answer.status_code == 404
    assert api.get("budgets").json()["results"] == []
    theirs.refresh_from_db()
    assert theirs.amount == 1


def test_an_account_that_closes_takes_no_budget() -> None:
    account = open_account()
    api = Api.by_key(account.pk)
    Account.objects.filter(pk=account.pk).update(closing_at=NOON)
    answer = api.post("budgets", BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "account_closed")


def test_a_replay_makes_no_second_one() -> None:
    api = Api.by_key(open_account().pk)
    first, again = (api.post("budgets", BODY, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert again.json() == first.json()
    assert Budget.objects.count() == 1


def test_a_list_takes_as_many_queries_however_long(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account, api, _ = capped()
    for number in range(5):
        budget_of(account, str(number + 2), name=str(number), alert_amounts=[Decimal(1)])
    services.tell_reached_budgets(NOON)
    with django_assert_num_queries(3):
        assert len(api.get("budgets").json()["results"]) == 6
