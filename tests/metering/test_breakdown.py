"""Usage by sandbox and by label: the same records as the totals, grouped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from metering.labels import LabelNameError
from metering.meters import Meter
from metering.models import Life, NetworkUsageRecord, StorageUsageRecord, UsageRecord
from metering.period import Period
from metering.queries import label_names, starts, usage_by_label, usage_by_sandbox, usage_totals
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

START = datetime(2026, 11, 2, 10, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
EVERYTHING = Period(START - DAY, START + DAY)
# Sandbox, labels, first minute and minutes of each life; they begin and end inside windows.
LIVES: list[tuple[str, dict[str, str], int, int]] = [
    ("sbx-a", {"team": "search", "stage": "test"}, 0, 41),
    ("sbx-a", {"team": "ads"}, 50, 33),
    ("sbx-a", {}, 100, 1),
    ("sbx-b", {"team": "search", "2026": "yes"}, 3, 90),
    ("sbx-c", {"team": "", "a__b": "'; %s"}, 20, 4),
    ("sbx-d", {}, 61, 2),
]
PERIODS = [
    EVERYTHING,
    # An edge of windows that lives lie over, one that is no edge, and one window.
    Period(START - DAY, START + 38 * MINUTE),
    Period(START + 38 * MINUTE, START + DAY),
    Period(START + 31 * MINUTE, START + 77 * MINUTE),
    Period(START + 8 * MINUTE, START + 23 * MINUTE),
    Period(START + 2 * DAY, START + 3 * DAY),
]


@pytest.fixture
def account_id() -> UUID:
    """An account with these lives, on a host that others use too."""
    host = Host()
    account_id = host.account()
    other = host.account()
    for sandbox_id, labels, begin, minutes in [*LIVES, ("sbx-a", {"team": "search"}, 0, 50)]:
        is_other = (begin, minutes) == (0, 50)
        life_start = START + begin * MINUTE
        life = host.start(other if is_other else account_id, sandbox_id, life_start)
        Life.objects.filter(pk=life).update(labels=labels | ({"theirs": "1"} if is_other else {}))
        host.run(life, life_start, life_start + minutes * MINUTE, cpu_ns_per_s=10**9 + begin)
        host.stop(life, life_start + minutes * MINUTE)
    host.fold(START + 200 * MINUTE)
    return account_id


def added_up(parts: Iterable[dict[Meter, int]]) -> dict[Meter, int]:
    total: Counter[Meter] = Counter()
    for part in parts:
        assert all(part.values())
        total.update(part)
    return dict(total)


COLUMNS = {
    Meter.CPU: (UsageRecord, "life", "cpu_ns"),
    Meter.GPU: (UsageRecord, "life", "gpu_ms"),
    Meter.MEMORY: (UsageRecord, "life", "memory_byte_ms"),
    Meter.NETWORK_EGRESS: (NetworkUsageRecord, "interface__life", "tx_bytes"),
    Meter.STORAGE: (StorageUsageRecord, "life", "storage_byte_ms"),
}


def one_by_one(account_id: UUID, period: Period, path: str) -> dict[Any, dict[Meter, int]]:
    """Add up every record, the slow and plain way; `path` goes from a life to what it is by."""
    sums: dict[Any, Counter[Meter]] = {}
    for meter, (model, life, column) in COLUMNS.items():
        rows: Iterable[tuple[Any, datetime, int]] = model._default_manager.filter(
            **{f"{life}__sandbox__account": account_id}
        ).values_list(f"{life}__{path}", "window_start", column)
        for part, window_start, quantity in rows:
            key = part.get("team") if isinstance(part, dict) else part
            if window_start in period and quantity:
                sums.setdefault(key, Counter())[meter] += quantity
    return {key: dict(sum_) for key, sum_ in sums.items()}


def only_compared(parts: dict[Any, dict[Meter, int]]) -> dict[Any, dict[Meter, int]]:
    return {
        part: {meter: quantity for meter, quantity in usage.items() if meter in COLUMNS}
        for part, usage in parts.items()
    }


@pytest.mark.parametrize("period", PERIODS)
def test_sandboxes_and_labels_add_up_to_the_totals(account_id: UUID, period: Period) -> None:
    totals = usage_totals(account_id, period)
    by_sandbox = usage_by_sandbox(account_id, period)
    assert added_up(by_sandbox.values()) == totals
    assert only_compared(by_sandbox) == one_by_one(account_id, period, "sandbox__sandbox_id")
    by_team = usage_by_label(account_id, period, name="team")
    assert added_up(by_team.values()) == totals
    assert only_compared(by_team) == one_by_one(account_id, period, "labels")
    for name in ("stage", "2026", "0", "a__b", "theirs"):
        assert added_up(usage_by_label(account_id, period, name=name).values()) == totals


def test_neighbouring_periods_add_up_for_each_sandbox_and_label(account_id: UUID) -> None:
    first, second = PERIODS[1], PERIODS[2]
    for used in (usage_by_sandbox, lambda a, p: usage_by_label(a, p, name="team")):
        whole: dict[Any, dict[Meter, int]] = used(account_id, EVERYTHING)
        parts: list[dict[Any, dict[Meter, int]]] = [
            used(account_id, first),
            used(account_id, second),
        ]
        for key, usage in whole.items():
            assert added_up(part.get(key, {}) for part in parts) == usage


def test_what_each_sandbox_and_each_value_used_is_the_closed_form(account_id: UUID) -> None:
    by_sandbox = usage_by_sandbox(account_id, EVERYTHING)
    assert set(by_sandbox) == {"sbx-a", "sbx-b", "sbx-c", "sbx-d"}
    second = 10**9
    assert by_sandbox["sbx-a"][Meter.CPU] == (
        41 * 60 * second + 33 * 60 * (second + 50) + 60 * (second + 100)
    )
    assert by_sandbox["sbx-d"][Meter.NETWORK_EGRESS] == 2 * 60 * 11
    by_team = usage_by_label(account_id, EVERYTHING, name="team")
    assert set(by_team) == {"search", "ads", "", None}
    assert by_team["ads"][Meter.CPU] == 33 * 60 * (second + 50)
    assert by_team[None][Meter.CPU] == 60 * (second + 100) + 120 * (second + 61)
    assert set(usage_by_label(account_id, EVERYTHING, name="2026")) == {"yes", None}
    assert set(usage_by_label(account_id, EVERYTHING, name="a__b")) == {"'; %s", None}
    # It is another account's.
    assert set(usage_by_label(account_id, EVERYTHING, name="theirs")) == {None}


def test_label_names_are_those_of_lives_with_usage_in_the_period(account_id: UUID) -> None:
    assert label_names(account_id, EVERYTHING) == ["2026", "a__b", "stage", "team"]
    # The window at 11:00, in which the first life is over.
    window = Period(START + 53 * MINUTE, START + 68 * MINUTE)
    assert label_names(account_id, window) == ["2026", "team"]
    assert label_names(account_id, PERIODS[-1]) == []


def test_labels_of_a_life_that_only_takes_up_storage_are_named(account_id: UUID) -> None:
    UsageRecord.objects.all().delete()
    NetworkUsageRecord.objects.all().delete()
    assert label_names(account_id, EVERYTHING) == ["2026", "a__b", "stage", "team"]
    assert set(usage_by_sandbox(account_id, EVERYTHING)["sbx-a"]) == {Meter.STORAGE}


def test_starts_are_counted_where_they_began(account_id: UUID) -> None:
    assert starts(account_id, EVERYTHING) == len(LIVES)
    # The life at 10:07 is in, the one at 10:57 is not.
    assert starts(account_id, Period(START, START + 50 * MINUTE)) == 3
    assert starts(account_id, Period(START + 50 * MINUTE, START + DAY)) == 3
    assert starts(account_id, Period(START + MINUTE, START + 2 * MINUTE)) == 0
    assert starts(uuid4(), EVERYTHING) == 0


def test_an_account_without_usage_has_none() -> None:
    account_id = Host().account()
    assert usage_by_sandbox(account_id, EVERYTHING) == {}
    assert usage_by_label(account_id, EVERYTHING, name="team") == {}
    assert label_names(account_id, EVERYTHING) == []


def test_a_name_no_label_can_have_is_refused_by_name(account_id: UUID) -> None:
    with pytest.raises(LabelNameError, match="'a b'"):
        usage_by_label(account_id, EVERYTHING, name="a b")
    with pytest.raises(LabelNameError):
        usage_by_label(account_id, EVERYTHING, name="\0")


def test_each_takes_one_query_a_table(account_id: UUID) -> None:
    for used, count in (
        (lambda: usage_by_sandbox(account_id, EVERYTHING), 3),
        (lambda: usage_by_label(account_id, EVERYTHING, name="team"), 3),
        (lambda: label_names(account_id, EVERYTHING), 1),
        (lambda: starts(account_id, EVERYTHING), 1),
    ):
        with CaptureQueriesContext(connection) as queries:
            used()
        assert len(queries) == count
