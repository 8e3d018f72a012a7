from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from billing import services
from billing.models import Account
from metering.models import Gap, Life
from metering.summaries import summarise_usage
from tests.billing.usage import NOON, open_account, record_usage
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

MAY = "usage/coverage?start=2026-05-01&end=2026-06-01"


def get(path: str, account: Account) -> Any:
    key = services.issue_api_key(account.pk, name="test", now=NOON).key
    return Client().get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"})


def account_with_usage(name: str) -> Account:
    account = open_account(name)
    record_usage(account.pk, NOON, cpu_s=1)
    summarise_usage(account.pk, [NOON.date()], now=NOON + timedelta(days=1))
    Gap.objects.create(
        life=Life.objects.get(sandbox__account_id=account.pk),
        meter="memory",
        start=NOON,
        end=NOON + timedelta(seconds=200),
        reason=Gap.Reason.HELD_TOO_LONG,
        recorded_at=NOON,
    )
    return account


def test_coverage_is_shown_in_all_by_day_and_by_sandbox_with_its_gaps() -> None:
    answer = get(MAY, account_with_usage("Ada"))
    assert answer.status_code == 200
    measured = {"running_ms": 800_000, "measured_ms": 600_000, "ratio": "0.75"}
    assert answer.json() == {
        "period": {"start": "2026-05-01", "end": "2026-06-01"},
        "time_zone": "UTC",
        "total": measured,
        "days": [measured | {"day": "2026-05-10", "sandboxes": 1}],
        "sandboxes": [measured | {"sandbox_id": "sbx-1"}],
        "sandboxes_left_out": 0,
        "gaps": [
            {
                "sandbox_id": "sbx-1",
                "meter": "memory",
                "reason": "held_too_long",
                "start": "2026-05-10T12:00:00Z",
                "end": "2026-05-10T12:03:20Z",
            }
        ],
        "gaps_left_out": 0,
    }


def test_another_accounts_coverage_never_shows() -> None:
    account_with_usage("Ada")
    body = get(MAY, open_account("Eve")).json()
    assert body["total"] == {"running_ms": 0, "measured_ms": 0, "ratio": None}
    assert (body["days"], body["sandboxes"], body["gaps"]) == ([], [], [])


def test_days_outside_are_left_out() -> None:
    account = account_with_usage("Ada")
    body = get("usage/coverage?start=2026-05-11&end=2026-06-01", account).json()
    assert (body["days"], body["sandboxes"], body["gaps"]) == ([], [], [])


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("", "start", "required"),
        ("start=2026-05-01", "end", "required"),
        ("start=2026-05-01T00:00:00Z&end=2026-06-01", "start", "YYYY-MM-DD"),
        ("start=2026-05-01&end=May", "end", "YYYY-MM-DD"),
        ("start=2026-05-01&end=2026-05-01", "end", "after start"),
        ("start=2026-05-01&end=2026-08-02", "end", "at most 92"),
        ("start=2001-01-01&end=9999-12-31", "end", "at most 92"),
        ("start=0001-01-01&end=0001-01-02", "start", "2000 or later"),
    ],
)
def test_days_that_cannot_be_are_refused_by_the_name_of_the_field(
    query: str, field: str, said: str
) -> None:
    answer = get(f"usage/coverage?{query}", open_account())
    assert answer.status_code == 400
    assert said in str(errors_of(answer)[field])


@pytest.mark.parametrize(
    "days",
    [
        "start=2026-05-01&end=2026-08-01",
        "start=2000-01-01&end=2000-01-02",
        "start=9999-12-30&end=9999-12-31",
    ],
)
def test_days_at_the_edges_are_answered(days: str) -> None:
    assert get(f"usage/coverage?{days}", open_account()).status_code == 200


def test_without_a_key_nothing_is_shown() -> None:
    assert Client().get(f"/api/v1/{MAY}").status_code == 401
