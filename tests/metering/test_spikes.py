from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from io import StringIO
from random import Random
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from metering.meters import Meter
from metering.models import DailyUsageSummary, Sandbox
from metering.spikes import FLOORS, HISTORY_DAYS, find_excess, find_spikes
from tests.metering.batches import Host

DAY = timedelta(days=1)
TODAY = date(2026, 11, 20)
HOUR_NS = 3600 * 10**9
FLOOR = FLOORS[Meter.CPU]

dice = Random(7)  # noqa: S311 - a test's dice


def noisy(level: float, share: float = 0.3) -> int:
    return int(level * HOUR_NS * dice.uniform(1 - share, 1 + share))


def by_the_week(day: int, *, work: float, rest: float) -> int:
    return noisy(rest if day % 7 in {5, 6} else work, 0.1)


# Each is of a history of four weeks and the day after it, oldest first.
QUIET = {
    "steady": [10 * HOUR_NS] * 29,
    "steady and noisy": [noisy(10) for _ in range(29)],
    "growing by a line": [(10 + n) * HOUR_NS for n in range(29)],
    "growing five percent a day": [int(10 * HOUR_NS * 1.05**n) for n in range(29)],
    "growing ten percent a day": [int(10 * HOUR_NS * 1.1**n) for n in range(29)],
    "shrinking": [(40 - n) * HOUR_NS for n in range(29)],
    "nothing at weekends": [by_the_week(n, work=50, rest=0) for n in range(29)],
    "a job each seventh day": [200 * HOUR_NS if n % 7 == 0 else HOUR_NS for n in range(29)],
    "more by a half": [10 * HOUR_NS] * 28 + [15 * HOUR_NS],
    "a level that is five days old": [10 * HOUR_NS] * 23 + [40 * HOUR_NS] * 6,
    "tiny": [10**9] * 28 + [HOUR_NS - 1],
    "tiny above little": [HOUR_NS // 10] * 28 + [HOUR_NS],
    "too young": [HOUR_NS] * 6 + [500 * HOUR_NS],
    "nothing at all": [0] * 29,
}
LOUD = {
    "five times as much": [10 * HOUR_NS] * 28 + [50 * HOUR_NS],
    "five times as much in noise": [noisy(10) for _ in range(28)] + [50 * HOUR_NS],
    "a first use": [0] * 28 + [5 * HOUR_NS],
    "a week old": [10 * HOUR_NS] * 7 + [50 * HOUR_NS],
    "work at a weekend": [by_the_week(n, work=50, rest=1) for n in range(26)] + [400 * HOUR_NS],
    "again, after one two weeks ago": [10 * HOUR_NS] * 14
    + [90 * HOUR_NS]
    + [10 * HOUR_NS] * 13
    + [60 * HOUR_NS],
}


@pytest.mark.parametrize("name", QUIET)
def test_what_goes_on_as_it_did_is_no_spike(name: str) -> None:
    *history, value = QUIET[name]
    assert find_excess(history[::-1], value, floor=FLOOR) is None


@pytest.mark.parametrize("name", LOUD)
def test_what_was_planted_is_found(name: str) -> None:
    *history, value = LOUD[name]
    excess = find_excess(history[::-1], value, floor=FLOOR)
    assert excess is not None
    assert excess.value == value


def test_the_figures_are_those_of_the_past_weeks() -> None:
    excess = find_excess([10 * HOUR_NS] * 28, 50 * HOUR_NS, floor=FLOOR)
    assert excess is not None
    assert (excess.expected, excess.ratio) == (Fraction(10 * HOUR_NS), Fraction(5))
    # Days that do not differ at all are taken to differ by a tenth.
    assert excess.score == 40
    first = find_excess([0] * 7, 5 * HOUR_NS, floor=FLOOR)
    assert first is not None
    assert (first.expected, first.ratio) == (Fraction(0), None)
    assert first.score == Fraction(5 * HOUR_NS * 5, FLOOR)


def use(account: UUID, values: list[int], *, last: date, column: str = "cpu_ns") -> None:
    """Leave summaries of two sandboxes whose sum is a value each day; 0 leaves none."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    for sandbox_id in ("a", "b"):
        sandbox, _ = Sandbox.objects.get_or_create(
            account_id=account, sandbox_id=sandbox_id, defaults={"recorded_at": now}
        )
        DailyUsageSummary.objects.bulk_create(
            DailyUsageSummary(
                account_id=account,
                sandbox=sandbox,
                day=last - n * DAY,
                computed_at=now,
                **{column: value // 2},
            )
            for n, value in enumerate(reversed(values))
            if value
        )


@pytest.mark.django_db
def test_spikes_of_all_accounts_come_most_severe_first() -> None:
    host = Host()
    quiet, loud, louder, young = (host.account() for _ in range(4))
    use(quiet, QUIET["steady and noisy"], last=TODAY)
    use(loud, LOUD["five times as much"], last=TODAY)
    use(louder, [10 * HOUR_NS] * 28 + [90 * HOUR_NS], last=TODAY - DAY)
    use(young, QUIET["too young"], last=TODAY)
    spikes = find_spikes(TODAY - 13 * DAY, TODAY)
    assert [(spike.account_id, spike.day, spike.meter) for spike in spikes] == [
        (louder, TODAY - DAY, Meter.CPU),
        (loud, TODAY, Meter.CPU),
    ]
    assert [spike.excess.value for spike in spikes] == [90 * HOUR_NS, 50 * HOUR_NS]
    assert [spike.account_id for spike in find_spikes(TODAY)] == [loud]
    assert find_spikes(TODAY, meter=Meter.GPU) == []


@pytest.mark.django_db
def test_days_without_a_summary_are_days_without_usage() -> None:
    account = Host().account()
    use(account, [3 * HOUR_NS] + [0] * 20 + [50 * HOUR_NS], last=TODAY)
    (spike,) = find_spikes(TODAY)
    assert spike.excess.expected == 0
    # An account with usage before all history has all of it, though its days are empty.
    old = Host().account()
    use(old, [3 * HOUR_NS] + [0] * (HISTORY_DAYS + 5) + [50 * HOUR_NS], last=TODAY)
    assert {spike.account_id for spike in find_spikes(TODAY)} == {account, old}


@pytest.mark.django_db
def test_each_meter_is_judged_by_itself() -> None:
    account = Host().account()
    use(account, [10**12] * 28 + [10**13], last=TODAY, column="network_tx_bytes")
    (spike,) = find_spikes(TODAY)
    assert (spike.meter, spike.excess.ratio) == (Meter.NETWORK_EGRESS, Fraction(10))


@pytest.mark.django_db
def test_the_command_lists_a_days_spikes() -> None:
    account = Host().account()
    use(account, LOUD["five times as much"], last=TODAY)
    out = StringIO()
    call_command("usage_spikes", "--day", "2026-11-20", stdout=out)
    assert out.getvalue() == (
        f"2026-11-20 {account}: 180000.000 cpu_seconds, expected 36000.000, ratio 5.0, score 40.0\n"
    )
    out = StringIO()
    call_command("usage_spikes", "--day", "2026-11-20", "--json", "--meter", "cpu", stdout=out)
    (spike,) = json.loads(out.getvalue())["spikes"]
    assert (spike["account"], spike["meter"], spike["ratio"]) == (str(account), "cpu", "5.0")
    out = StringIO()
    call_command("usage_spikes", "--day", "2026-11-19", stdout=out)
    assert "No account stands out on 2026-11-19." in out.getvalue()


@pytest.mark.django_db
def test_staff_see_the_last_days_spikes_of_all_meters_or_of_one(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metering.admin_usage._today", lambda: TODAY)
    address = "/admin/metering/dailyusagesummary/spikes/"
    assert "No account stands out." in admin_client.get(address).content.decode()
    account = Host().account()
    use(account, LOUD["five times as much"], last=TODAY)
    for query, is_shown in (
        ("", True),
        ("?meter=cpu", True),
        ("?meter=gpu", False),
        ("?meter=x", True),
    ):
        shown = admin_client.get(address + query).content.decode()
        assert ("180,000.000 cpu_seconds" in shown) is is_shown, query
        assert (str(account) in shown) is is_shown


@pytest.mark.django_db
def test_who_may_not_see_days_does_not_see_their_spikes(client: Client) -> None:
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get("/admin/metering/dailyusagesummary/spikes/").status_code == 403
