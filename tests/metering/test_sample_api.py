"""Samples that are sent: over HTTP, through Redis and the fold, to usage."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer
from rest_framework.test import APIClient

from metering import stream
from metering.aggregator import aggregate_host
from metering.api import views
from metering.api.parsing import EVENT_TYPE, FIELDS
from metering.collector import collect_host
from metering.meters import GB, Meter
from metering.models import (
    AccountRegistration,
    Gap,
    Host,
    Life,
    LifeReading,
    MeteringKey,
    Refusal,
    Sandbox,
    StreamCursor,
)
from metering.queries import streams_behind
from metering.samples import unpack
from metering.sent import Fault
from metering.services import register_host
from metering.silence import close_silent_hosts
from metering.source import SourceError
from metering.stream import StreamUnavailableError
from metering.tasks import collect_all
from tests.metering.runtime import EVENTS, MINUTE, NOON, PATH, SECOND, Runtime, text_of

pytestmark = pytest.mark.django_db


class Clock(datetime):
    """A clock that stands still at noon."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        del tz
        return NOON


@pytest.fixture(autouse=True)
def _it_is_noon(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "live_server" not in request.fixturenames:
        monkeypatch.setattr(views, "datetime", Clock)


def a_life_of_ten_minutes(runtime: Runtime, life: str = "pod-1/0") -> list[dict[str, Any]]:
    """A sample each minute of a life that uses half a cpu and ends at the tenth."""
    start = NOON - 10 * MINUTE
    return [
        runtime.sample(
            life=life,
            started_at=text_of(start),
            read_at=text_of(start + minute * MINUTE),
            cpu_ns=30 * 10**9 * minute,
            memory_bytes=GB,
            storage_bytes=2 * GB,
            disk_read_bytes=100 * minute,
            disk_write_bytes=200 * minute,
            interfaces={
                "eth0": {"rx_bytes": 5 * minute, "tx_bytes": 7 * minute},
                "lo": {"rx_bytes": 10**9, "tx_bytes": 10**9},
            },
            cpu_limit_micro=500_000,
            memory_limit_bytes=2 * GB,
            gpu_count=1,
            interval_s=60,
            **({"state": "stopped", "event": "stopped"} if minute == 10 else {}),
        )
        for minute in range(1, 11)
    ]


CLOSED_FORM = {
    Meter.CPU: 300 * 10**9,
    # Held from the first sample, after a minute, to the end.
    Meter.MEMORY: GB * 540_000,
    Meter.STORAGE: 2 * GB * 540_000,
    Meter.NETWORK_EGRESS: 70,
    Meter.NETWORK_INGRESS: 50,
    Meter.DISK_READ: 1000,
    Meter.DISK_WRITE: 2000,
    Meter.GPU: 600_000,
    Meter.CPU_ALLOCATED: 500_000 * 600_000,
    Meter.MEMORY_ALLOCATED: 2 * GB * 600_000,
}


def test_a_life_that_was_sent_is_billed_to_the_closed_form() -> None:
    runtime = Runtime()
    answer = runtime.send(*a_life_of_ten_minutes(runtime))
    assert answer == {"accepted": 10, "duplicates": 0, "rejected": []}
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM
    life = Life.objects.get()
    assert (life.key, life.container_id, life.host) == ("pod-1/0", "pod-1/0", runtime.host)
    assert (life.started_at, life.ended_at, life.gone_at) == (NOON - 10 * MINUTE, NOON, NOON)
    assert life.counts_from_zero
    assert life.sandbox.sandbox_id == "sbx-1"
    assert not Refusal.objects.exists()
    assert set(Gap.objects.values_list("reason", flat=True)) == {"before_first_sample"}


def test_the_same_call_again_changes_nothing_folded_or_not() -> None:
    runtime = Runtime()
    samples = a_life_of_ten_minutes(runtime)
    assert runtime.send(*samples)["accepted"] == 10
    # Not folded yet: the fold drops the second ones.
    assert runtime.send(*samples)["accepted"] == 10
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM
    assert runtime.send(*samples) == {"accepted": 0, "duplicates": 10, "rejected": []}
    assert runtime.aggregate() == 0
    assert runtime.usage() == CLOSED_FORM
    assert LifeReading.objects.get().sample_count == 10


def test_one_call_a_sample_bills_what_one_call_of_all_does() -> None:
    runtime = Runtime()
    for number, sample in enumerate(a_life_of_ten_minutes(runtime)):
        assert runtime.send(sample)["accepted"] == 1
        if number % 3 == 0:
            runtime.aggregate()
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def test_samples_in_any_order_of_a_call_bill_the_same() -> None:
    runtime = Runtime()
    assert runtime.send(*reversed(a_life_of_ten_minutes(runtime)))["accepted"] == 10
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def test_a_life_that_began_before_its_host_was_known_counts_from_its_first_sample() -> None:
    runtime = Runtime()
    long_ago = text_of(NOON - timedelta(days=100))
    for minutes, cpu_ns in ((2, 10**15), (1, 10**15 + 5)):
        read_at = text_of(NOON - minutes * MINUTE)
        runtime.send(runtime.sample(started_at=long_ago, read_at=read_at, cpu_ns=cpu_ns))
    runtime.aggregate()
    assert not Life.objects.get().counts_from_zero
    assert runtime.usage() == {Meter.CPU: 5}


@pytest.mark.parametrize("missing", ["account_id", "sandbox_id", "life", "started_at", "read_at"])
@pytest.mark.parametrize("said", [..., None])
def test_a_missing_field_is_named(missing: str, said: object) -> None:
    runtime = Runtime()
    (bad,) = runtime.send(runtime.sample(**{missing: said}))["rejected"]
    assert (bad["index"], bad["field"], bad["reason"]) == (0, missing, "missing")


HUGE = 2**62
INFINITY = float("inf")
NOT_WHOLE: list[object] = [1.5, 1.0, "5", True, [], {}, float("nan"), INFINITY, -INFINITY]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"account_id": "nobody"}, "account_id", "malformed"),
    ({"account_id": 7}, "account_id", "malformed"),
    ({"account_id": str(uuid4())}, "account_id", "account_unknown"),
    ({"sandbox_id": "-bad"}, "sandbox_id", "malformed"),
    ({"sandbox_id": "x" * 129}, "sandbox_id", "malformed"),
    ({"sandbox_id": ["sbx"]}, "sandbox_id", "malformed"),
    ({"life": ""}, "life", "malformed"),
    ({"life": "x" * 129}, "life", "malformed"),
    ({"life": "a\nb"}, "life", "malformed"),
    ({"life": "a\x00b"}, "life", "malformed"),
    ({"life": "\ud800"}, "life", "malformed"),
    ({"life": 5}, "life", "malformed"),
    *(
        ({name: value}, name, reason)
        for name in ("cpu_ns", "disk_read_bytes", "disk_write_bytes")
        for value, reason in ((-1, "negative"), (HUGE, "too_large"))
    ),
    *(
        ({name: value}, name, reason)
        for name in ("memory_bytes", "storage_bytes", "memory_limit_bytes")
        for value, reason in ((-1, "negative"), (8 * 2**40 + 1, "too_large"))
    ),
    ({"cpu_limit_micro": 100_000 * 10**6 + 1}, "cpu_limit_micro", "too_large"),
    ({"gpu_count": 2**16}, "gpu_count", "too_large"),
    *(({"cpu_ns": value}, "cpu_ns", "not_an_integer") for value in NOT_WHOLE),
    ({"cpu_seconds": 5}, "cpu_seconds", "wrong_unit"),
    ({"cpu": 5}, "cpu", "wrong_unit"),
    ({"cpu_limit_millis": 5}, "cpu_limit_millis", "wrong_unit"),
    ({"memory_mb": 5}, "memory_mb", "wrong_unit"),
    ({"memory_limit_gb": 5}, "memory_limit_gb", "wrong_unit"),
    ({"network_rx_bytes": 5}, "network_rx_bytes", "wrong_unit"),
    ({"interval_ms": 5}, "interval_ms", "wrong_unit"),
    ({"read_ms": 5}, "read_ms", "wrong_unit"),
    ({"memoryBytes": 5}, "memoryBytes", "unknown_field"),
    ({"price": 5}, "price", "unknown_field"),
    ({"\ud800\x00": 5}, "??", "unknown_field"),
    ({"started_at": 5}, "started_at", "malformed"),
    ({"started_at": "yesterday"}, "started_at", "malformed"),
    ({"started_at": "2026-02-30T00:00:00Z"}, "started_at", "malformed"),
    ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at", "malformed"),
    ({"started_at": "9999-12-31T23:59:59-14:00"}, "started_at", "malformed"),
    ({"started_at": "1969-12-31T23:59:59Z"}, "started_at", "too_old"),
    ({"read_at": "2026-11-02T11:59:00"}, "read_at", "no_time_zone"),
    ({"read_at": "20261102T115900Z"}, "read_at", "malformed"),
    ({"read_at": text_of(NOON - 11 * MINUTE)}, "read_at", "before_start"),
    ({"read_at": text_of(NOON + 5 * MINUTE + SECOND)}, "read_at", "too_far_ahead"),
    ({"read_at": text_of(NOON - timedelta(days=35, seconds=1))}, "read_at", "too_old"),
    ({"state": "asleep"}, "state", "malformed"),
    ({"state": ["running"]}, "state", "malformed"),
    ({"event": "oom"}, "event", "malformed"),
    ({"event": "stopped"}, "state", "not_stopped"),
    ({"interval_s": 0}, "interval_s", "too_small"),
    ({"interval_s": 301}, "interval_s", "too_large"),
    ({"interval_s": 0.5}, "interval_s", "not_an_integer"),
    ({"interfaces": []}, "interfaces", "malformed"),
    ({"interfaces": {"eth0": 5}}, "interfaces.eth0", "malformed"),
    ({"interfaces": {"a/b": {}}}, "interfaces.a/b", "malformed"),
    ({"interfaces": {"x" * 16: {}}}, f"interfaces.{'x' * 16}", "malformed"),
    ({"interfaces": {"eth0": {"rx_bytes": 1}}}, "interfaces.eth0.tx_bytes", "missing"),
    (
        {"interfaces": {"eth0": {"rx_bytes": -1, "tx_bytes": 0}}},
        "interfaces.eth0.rx_bytes",
        "negative",
    ),
    (
        {"interfaces": {"eth0": {"rx_bytes": 0, "tx_bytes": HUGE}}},
        "interfaces.eth0.tx_bytes",
        "too_large",
    ),
    ({"interfaces": {"eth0": {"rx_mb": 1}}}, "interfaces.eth0.rx_mb", "wrong_unit"),
    ({"interfaces": {str(n): {} for n in range(65)}}, "interfaces", "too_large"),
]


@pytest.mark.parametrize(("fields", "field", "reason"), REFUSED)
def test_a_bad_sample_is_named_and_counted_and_costs_its_neighbours_nothing(
    fields: dict[str, Any], field: str, reason: str
) -> None:
    runtime = Runtime()
    good = runtime.sample(sandbox_id="good", life="good", cpu_ns=540)
    bad = runtime.sample(**fields)
    answer = runtime.post({"samples": [bad, good, bad]}).json()
    assert (answer["accepted"], answer["duplicates"]) == (1, 0)
    assert [(r["index"], r["field"], r["reason"]) for r in answer["rejected"]] == [
        (0, field, reason),
        (2, field, reason),
    ]
    assert answer["rejected"][0]["detail"]
    refusal = Refusal.objects.get()
    assert (refusal.host, refusal.count) == (runtime.host, 2)
    assert refusal.detail.startswith(f"{field}: ")
    runtime.aggregate()
    assert runtime.usage() == {Meter.CPU: 540}


def test_a_number_of_more_digits_than_python_reads_is_named() -> None:
    runtime = Runtime()
    sample = json.dumps(runtime.sample()).replace("9000", "9" * 5000)
    answer = runtime.post(f'{{"samples": [{sample}]}}'.encode()).json()
    assert [(r["field"], r["reason"]) for r in answer["rejected"]] == [("cpu_ns", "too_large")]


def test_a_value_that_is_no_sample_is_named() -> None:
    runtime = Runtime()
    answer = runtime.send(5, None, [], runtime.sample())  # type: ignore[arg-type]
    assert [(r["index"], r["field"]) for r in answer["rejected"]] == [
        (0, "sample"),
        (1, "sample"),
        (2, "sample"),
    ]
    assert answer["accepted"] == 1


def test_the_largest_figures_that_are_taken_are_billed() -> None:
    runtime = Runtime()
    sample = runtime.sample(
        cpu_ns=HUGE - 1,
        memory_bytes=8 * 2**40,
        storage_bytes=8 * 2**40,
        cpu_limit_micro=100_000 * 10**6,
        memory_limit_bytes=8 * 2**40,
        gpu_count=2**16 - 1,
    )
    stop = runtime.sample(read_at=text_of(NOON), state="stopped", event="stopped", cpu_ns=HUGE - 1)
    assert runtime.send(sample | {"interval_s": 60}, stop)["accepted"] == 2
    runtime.aggregate()
    usage = runtime.usage()
    assert usage[Meter.CPU] == HUGE - 1
    assert usage[Meter.STORAGE] == usage[Meter.MEMORY] == 8 * 2**40 * 60_000
    assert usage[Meter.GPU] == (2**16 - 1) * 600_000
    assert not Refusal.objects.exists()


def test_refusals_say_whose_sample_it_was_and_why() -> None:
    runtime = Runtime()
    nobody = uuid4()
    runtime.send(
        runtime.sample(account_id=...),
        runtime.sample(account_id="x" * 200),
        runtime.sample(account_id=str(nobody)),
        runtime.sample(sandbox_id="-bad"),
        runtime.sample(cpu_ns=-1, life="a\x00b"),
    )
    account = str(runtime.account_id)
    assert set(Refusal.objects.values_list("reason", "subject")) == {
        ("account_missing", "/sbx-1/pod-1/0"),
        ("account_malformed", f"{'x' * 36}/sbx-1/pod-1/0"),
        ("account_unknown", f"{nobody}/sbx-1/pod-1/0"),
        ("sandbox_malformed", f"{account}/-bad/pod-1/0"),
        ("sample_unbelievable", f"{account}/sbx-1/a?b"),
    }


def test_when_every_sample_is_rejected_the_call_says_so() -> None:
    runtime = Runtime()
    answer = runtime.post({"samples": [runtime.sample(cpu_ns=-1)]})
    assert answer.status_code == 422
    assert answer.json()["accepted"] == 0
    assert answer.json()["rejected"][0]["field"] == "cpu_ns"
    runtime.host.refresh_from_db()
    assert runtime.host.last_seen_at is None


def test_an_account_that_is_not_active_is_refused() -> None:
    runtime = Runtime()
    AccountRegistration.objects.update(is_active=False)
    (bad,) = runtime.send(runtime.sample())["rejected"]
    assert (bad["field"], bad["reason"]) == ("account_id", "account_not_active")


def test_a_key_of_one_account_speaks_of_it_and_of_no_other() -> None:
    runtime = Runtime(of_one_account=True)
    other = runtime.open_account()
    answer = runtime.send(
        runtime.sample(account_id=...),
        runtime.sample(account_id=str(other), life="pod-2/0"),
        runtime.sample(account_id=str(runtime.account_id).upper(), life="pod-3/0"),
    )
    assert answer["accepted"] == 2
    assert [(r["index"], r["reason"]) for r in answer["rejected"]] == [(1, "account_not_of_key")]
    runtime.aggregate()
    assert runtime.usage()[Meter.CPU] == 18_000
    assert runtime.usage(other) == {}
    assert Refusal.objects.get().reason == "account_unknown"


def test_a_life_key_is_of_one_sandbox_and_of_one_start() -> None:
    runtime = Runtime()
    other = runtime.open_account()
    assert runtime.send(runtime.sample())["accepted"] == 1
    answer = runtime.send(
        runtime.sample(sandbox_id="sbx-2"),
        runtime.sample(account_id=str(other)),
        runtime.sample(started_at=text_of(NOON - 5 * MINUTE)),
        runtime.sample(read_at=text_of(NOON), cpu_ns=10_000),
    )
    assert answer["accepted"] == 1
    assert [(r["index"], r["field"], r["reason"]) for r in answer["rejected"]] == [
        (0, "life", "life_taken"),
        (1, "life", "life_taken"),
        (2, "started_at", "life_started_otherwise"),
    ]
    runtime.aggregate()
    assert (runtime.usage(), runtime.usage(other)) == ({Meter.CPU: 10_000}, {})


def test_one_life_key_on_two_hosts_is_two_lives() -> None:
    one, other = Runtime(), Runtime()
    for runtime in (one, other):
        assert runtime.send(runtime.sample())["accepted"] == 1
        runtime.aggregate()
        assert runtime.usage() == {Meter.CPU: 9000}
    assert Life.objects.count() == 2


def test_repeats_in_a_call_are_counted_and_contradictions_rejected() -> None:
    runtime = Runtime()
    sample = runtime.sample()
    answer = runtime.send(sample, sample, sample | {"cpu_ns": 1}, dict(reversed(sample.items())))
    assert (answer["accepted"], answer["duplicates"]) == (1, 2)
    (bad,) = answer["rejected"]
    assert (bad["index"], bad["field"], bad["reason"]) == (2, "read_at", "conflicting")
    assert "Sample 0" in bad["detail"]


def test_a_life_ends_once_and_nothing_comes_after() -> None:
    runtime = Runtime()
    stop = runtime.sample(state="stopped", event="stopped")
    later = {"read_at": text_of(NOON)}
    for samples in ((stop, runtime.sample(**later)), (stop | later, runtime.sample(**later))):
        rejected = runtime.send(*samples)["rejected"]
        assert {r["reason"] for r in rejected} <= {"life_ended", "conflicting"}
        assert len(rejected) == len(samples) - (samples[0] is stop)
    assert Life.objects.get().ended_at == NOON - MINUTE
    runtime.aggregate()
    assert runtime.usage() == {Meter.CPU: 9000}
    assert Life.objects.get().ended_at == NOON - MINUTE


def test_a_stop_before_what_was_read_is_rejected_and_one_at_it_ends_the_life() -> None:
    runtime = Runtime()
    runtime.send(runtime.sample())
    runtime.aggregate()
    stop = {"state": "stopped", "event": "stopped"}
    (bad,) = runtime.send(runtime.sample(read_at=text_of(NOON - 2 * MINUTE), **stop))["rejected"]
    assert (bad["field"], bad["reason"]) == ("read_at", "read_later")
    assert runtime.send(runtime.sample(**stop))["duplicates"] == 1
    assert Life.objects.get().ended_at == NOON - MINUTE


def test_a_stop_whose_life_was_not_written_ends_it_when_it_is_sent_again() -> None:
    runtime = Runtime()
    samples = a_life_of_ten_minutes(runtime)
    runtime.send(*samples)
    runtime.aggregate()
    Life.objects.update(ended_at=None, gone_at=None)
    assert runtime.send(*samples)["duplicates"] == 10
    assert Life.objects.get().ended_at == NOON


@pytest.mark.parametrize("last", [{}, {"state": "stopped", "event": "stopped"}])
def test_a_life_that_was_closed_while_its_host_was_silent_goes_on(last: dict[str, str]) -> None:
    runtime = Runtime()
    samples = a_life_of_ten_minutes(runtime)
    runtime.send(*samples[:4])
    runtime.aggregate()
    Host.objects.update(last_seen_at=NOON - 20 * MINUTE)
    assert close_silent_hosts(now=NOON - 4 * MINUTE) == 1
    assert Gap.objects.filter(meter=Gap.WHOLE_LIFE).count() == 1
    # A repeat tells nothing new, so it is no sign of life.
    assert runtime.send(*samples[:4])["duplicates"] == 4
    assert Life.objects.get().ended_at is not None
    assert runtime.send(samples[8] | last)["accepted"] == 1
    assert Life.objects.get().ended_at == (NOON - MINUTE if last else None)
    assert not Gap.objects.filter(meter=Gap.WHOLE_LIFE).exists()
    runtime.aggregate()
    assert runtime.usage()[Meter.CPU] == 270 * 10**9


def test_limits_left_out_stay_as_they_were() -> None:
    runtime = Runtime()
    start = NOON - 10 * MINUTE
    changes: list[dict[str, int]] = [
        {"cpu_limit_micro": 10**6, "memory_limit_bytes": GB},
        {},
        {"cpu_limit_micro": 2 * 10**6},
        {"gpu_count": 1},
    ]
    for number, limits in enumerate(changes, start=1):
        read_at = text_of(start + number * MINUTE)
        runtime.send(runtime.sample(read_at=read_at, cpu_ns=..., **limits))
    end = {"read_at": text_of(start + 5 * MINUTE), "state": "stopped", "event": "stopped"}
    runtime.send(runtime.sample(cpu_ns=..., **end))
    runtime.aggregate()
    # Each limit holds from the sample that shows it; the first from the life's beginning.
    assert runtime.usage() == {
        Meter.CPU_ALLOCATED: (3 * 10**6 + 2 * 2 * 10**6) * 60_000,
        Meter.MEMORY_ALLOCATED: GB * 300_000,
        Meter.GPU: 60_000,
    }
    life = Life.objects.get()
    assert (life.cpu_limit_micro, life.memory_limit_bytes, life.gpu_count) == (2 * 10**6, GB, 1)


def test_memory_is_held_for_five_of_its_own_intervals() -> None:
    runtime = Runtime()
    start = NOON - 10 * MINUTE
    for life, interval in (("a", {}), ("b", {"interval_s": 60})):
        for minute in (0.5, 8):
            sample = runtime.sample(
                life=life,
                sandbox_id=life,
                read_at=text_of(start + minute * MINUTE),
                memory_bytes=1000,
                cpu_ns=...,
                **interval,
            )
            assert runtime.send(sample)["accepted"] == 1
    runtime.aggregate()
    assert runtime.usage() == {Meter.MEMORY: 1000 * (10_000 + 300_000)}


def test_samples_of_two_intervals_are_batches_of_their_own() -> None:
    runtime = Runtime()
    samples = [runtime.sample(life=str(n), interval_s=10 + n % 2) for n in range(6)]
    assert runtime.send(*samples)["accepted"] == 6
    batches = [unpack(e.packed) for e in stream.read_after(runtime.host.pk, "0-0", limit=9)]
    assert [(b.collected_ms, b.interval_ms, len(b.samples)) for b in batches] == [
        (0, 10_000, 3),
        (0, 11_000, 3),
    ]


def test_a_paused_life_counts_memory_and_no_cpu_allocation() -> None:
    runtime = Runtime()
    start = NOON - 10 * MINUTE
    for minute, state in ((1, "running"), (2, "paused"), (3, "running")):
        runtime.send(
            runtime.sample(
                read_at=text_of(start + minute * MINUTE),
                state=state,
                cpu_ns=7,
                memory_bytes=1000,
                cpu_limit_micro=10**6,
                interval_s=60,
            )
        )
    runtime.aggregate()
    usage = runtime.usage()
    assert usage[Meter.MEMORY] == 1000 * 120_000
    assert usage[Meter.CPU_ALLOCATED] == 10**6 * 120_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-02T11:59:00Z", 0),
        ("2026-11-02t11:59:00.1z", 100),
        ("2026-11-02T11:59:00.123456789Z", 123),
        ("2026-11-02T12:59:00.999+01:00", 999),
        ("2026-11-02T06:29:00.0005-05:30", 0),
    ],
)
def test_times_are_taken_to_the_millisecond_in_any_zone(text: str, ms: int) -> None:
    runtime = Runtime()
    assert runtime.send(runtime.sample(read_at=text))["accepted"] == 1
    (entry,) = stream.read_after(runtime.host.pk, "0-0", limit=2)
    read_ms = int(unpack(entry.packed).samples["read_ms"][0])
    assert read_ms == int((NOON - MINUTE).timestamp()) * 1000 + ms


def test_a_call_of_a_thousand_samples_is_taken_and_one_of_more_is_not() -> None:
    runtime = Runtime()
    samples = [runtime.sample(sandbox_id=f"sbx-{n}", life=f"pod-{n}") for n in range(1001)]
    answer = runtime.post({"samples": samples})
    assert answer.status_code == 413
    assert "at most 1000" in answer.json()["detail"]
    assert not Life.objects.exists()
    for _ in range(2):
        assert runtime.send(*samples[:1000])["accepted"] == 1000
    runtime.aggregate()
    assert runtime.usage() == {Meter.CPU: 9_000_000}
    assert Sandbox.objects.count() == 1000


def test_a_thousand_bad_samples_are_counted() -> None:
    runtime = Runtime()
    samples = [runtime.sample(life=f"pod-{n}", cpu_ns=-1) for n in range(1000)]
    assert len(runtime.send(*samples)["rejected"]) == 1000
    assert Refusal.objects.count() == 1000


def test_a_body_over_its_limit_is_refused_with_the_limit() -> None:
    runtime = Runtime()
    answer = runtime.post(b'{"samples": [' + b" " * 2**20 + b"]}")
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"5",
        b"[]",
        b"{}",
        b'{"samples": {}}',
        b'{"samples": []}',
        b'{"samples": [{}], "interval_s": 5}',
    ],
)
def test_a_body_that_is_no_call_is_a_bad_request(body: bytes) -> None:
    answer = Runtime().post(body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data"])
def test_another_content_type_is_refused(media_type: str) -> None:
    runtime = Runtime()
    body = {"samples": [runtime.sample()]}
    assert runtime.post(body, media_type=media_type).status_code == 415


def test_without_a_metering_key_nothing_is_taken() -> None:
    runtime = Runtime()
    key, body = runtime.key, {"samples": [runtime.sample()]}
    for runtime.key in ("", "nonsense", key[:-1], "sbx_live_nonsense", "\xff"):
        answer = runtime.post(body)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"
    assert APIClient().post(PATH, body, format="json").status_code == 401
    assert not Life.objects.exists()


def test_a_key_does_what_its_scopes_say() -> None:
    sends, collects = Runtime(), Runtime(scopes=("collect",))
    answer = collects.post({"samples": [collects.sample()]})
    assert answer.status_code == 403
    assert "samples" in answer.json()["detail"]
    assert collect(sends, "sbx-1").status_code == 403


def test_a_host_that_is_not_active_takes_no_samples() -> None:
    runtime = Runtime()
    Host.objects.update(is_active=False)
    answer = runtime.post({"samples": [runtime.sample()]})
    assert answer.status_code == 403
    assert "not active" in answer.json()["detail"]


def test_without_the_stream_the_call_is_to_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    samples = a_life_of_ten_minutes(runtime)

    def refuse(*_: object, **_named: object) -> None:
        raise StreamUnavailableError("Redis did not take the batch: it is full")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "append", refuse)
        answer = runtime.post({"samples": samples})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert Life.objects.get().ended_at is None
    assert runtime.send(*samples)["accepted"] == 10
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def an_event(sample: object, **attributes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/clusters/one",
        "type": EVENT_TYPE,
        "data": sample,
        "datacontenttype": "application/json",
        "someextension": 5,
    }
    return {name: value for name, value in (event | attributes).items() if value is not ...}


def test_a_batch_of_cloud_events_is_taken() -> None:
    runtime = Runtime()
    events = [an_event(sample) for sample in a_life_of_ten_minutes(runtime)]
    answer = runtime.post(events, media_type=EVENTS)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 10)
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def test_one_cloud_event_is_taken_and_its_time_stands_in() -> None:
    runtime = Runtime()
    sample = runtime.sample(read_at=...)
    event = an_event(sample, time=text_of(NOON - MINUTE))
    answer = runtime.post(event, media_type="application/cloudevents+json; charset=utf-8")
    assert answer.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    # A time of the sample's own counts before the event's.
    both = an_event(runtime.sample(), time=text_of(NOON - 5 * MINUTE))
    runtime.post([both], media_type=EVENTS)
    times = [
        int(unpack(entry.packed).samples["read_ms"][0])
        for entry in stream.read_after(runtime.host.pk, "0-0", limit=9)
    ]
    assert times == [int((NOON - MINUTE).timestamp()) * 1000] * 2


@pytest.mark.parametrize(
    ("attributes", "field", "reason"),
    [
        ({"specversion": "0.3"}, "specversion", "malformed"),
        ({"specversion": ...}, "specversion", "missing"),
        ({"type": "another"}, "type", "malformed"),
        ({"type": ...}, "type", "missing"),
        ({"id": ""}, "id", "missing"),
        ({"source": ...}, "source", "missing"),
        ({"data": ...}, "data", "missing"),
        ({"data": 5}, "data", "malformed"),
        ({"data": {"cpu_ns": -1}}, "account_id", "missing"),
        ({"time": "noon"}, "time", "malformed"),
        ({"time": "2026-11-02T11:59:00"}, "time", "no_time_zone"),
        ({}, "read_at", "missing"),
    ],
)
def test_a_bad_event_is_named_and_costs_its_neighbours_nothing(
    attributes: dict[str, Any], field: str, reason: str
) -> None:
    runtime = Runtime()
    bad = an_event(runtime.sample(read_at=...), **attributes)
    answer = runtime.post([bad, an_event(runtime.sample())], media_type=EVENTS).json()
    assert answer["accepted"] == 1
    assert [(r["index"], r["field"], r["reason"]) for r in answer["rejected"]] == [
        (0, field, reason)
    ]


def test_a_list_is_no_json_call_and_an_object_no_batch() -> None:
    runtime = Runtime()
    assert runtime.post([an_event(runtime.sample())]).status_code == 400
    assert runtime.post(an_event(runtime.sample()), media_type=EVENTS).status_code == 400


def test_a_push_host_is_up_to_date_once_its_stream_is_read() -> None:
    runtime = Runtime()
    runtime.send(runtime.sample())
    runtime.host.refresh_from_db()
    assert runtime.host.last_seen_at == NOON
    assert streams_behind(runtime.account_id, until=NOON) == [runtime.host.name]
    # Redis numbers entries by the real clock, later than this noon or earlier.
    runtime.aggregate(now=NOON + MINUTE)
    assert StreamCursor.objects.get().collected_until == NOON + MINUTE
    assert streams_behind(runtime.account_id, until=NOON) == []
    runtime.aggregate(now=NOON + 2 * MINUTE)
    assert StreamCursor.objects.get().collected_until == NOON + 2 * MINUTE
    # A clock that is behind another worker's takes nothing back.
    runtime.aggregate(now=NOON)
    assert StreamCursor.objects.get().collected_until == NOON + 2 * MINUTE


def test_a_push_host_that_is_sent_to_all_the_time_is_not_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Runtime()
    for minute in (3, 2, 1):
        runtime.send(runtime.sample(read_at=text_of(NOON - minute * MINUTE)))
    monkeypatch.setattr("metering.aggregator.COMMITS_PER_RUN", 1)
    # One commit, which is not the one that finds the end.
    now = datetime.now(UTC) + MINUTE
    runtime.aggregate(now=now)
    until = StreamCursor.objects.get().collected_until
    assert until is not None
    assert now - 3 * MINUTE < until < now


def test_a_docker_host_is_not_up_to_date_by_an_empty_stream() -> None:
    host = register_host(host_id=uuid4(), name="docker", endpoint="unix:///nowhere", now=NOON)
    Runtime()
    assert aggregate_host(host.pk, now=NOON) == 0
    assert StreamCursor.objects.get(host=host).collected_until is None


def test_nobody_collects_where_samples_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime()
    host = register_host(host_id=uuid4(), name="docker", endpoint="unix:///nowhere", now=NOON)
    sent: list[str] = []
    monkeypatch.setattr(
        "metering.tasks.collect.apply_async", lambda args, **_: sent.append(args[0])
    )
    collect_all()
    assert sent == [str(host.pk)]


def collect(runtime: Runtime, sandbox_id: str, account_id: object = None) -> Any:
    client = APIClient(headers={"Authorization": f"Bearer {runtime.key}"})
    query = f"?account_id={account_id}" if account_id else ""
    return client.post(f"/api/v1/metering/sandboxes/{sandbox_id}/collect{query}")


def test_a_last_reading_is_taken_at_once() -> None:
    runtime = Runtime(scopes=("collect",), of_one_account=True)
    before = datetime.now(UTC) - MINUTE
    host = register_host(
        host_id=uuid4(),
        name="simulated",
        endpoint=f"simulator:?account={runtime.account_id}",
        now=before,
    )
    collect_host(host.pk, now=datetime.now(UTC))
    entries = len(list(stream.read_after(host.pk, "0-0", limit=9)))
    answer = collect(runtime, "simulated-2")
    assert (answer.status_code, answer.json()) == (200, {"read": 1})
    assert len(list(stream.read_after(host.pk, "0-0", limit=9))) == entries + 1
    aggregate_host(host.pk, now=datetime.now(UTC))
    assert not Refusal.objects.exists()


def test_only_sandboxes_of_the_keys_account_are_found() -> None:
    runtime = Runtime(scopes=("samples", "collect"), of_one_account=True)
    runtime.send(runtime.sample())
    other = runtime.open_account()
    # It is sent, so there is nobody to ask.
    assert collect(runtime, "sbx-1").json() == {"read": 0}
    assert collect(runtime, "sbx-1", runtime.account_id).status_code == 200
    for sandbox_id, account_id in (("sbx-1", other), ("sbx-2", None)):
        assert collect(runtime, sandbox_id, account_id).status_code == 404
    assert collect(runtime, "sbx-1%00").json()["code"] == "nul_byte"


def test_a_key_of_every_account_says_whose_sandbox_it_is() -> None:
    runtime = Runtime(scopes=("samples", "collect"))
    runtime.send(runtime.sample())
    assert collect(runtime, "sbx-1", runtime.account_id).json() == {"read": 0}
    assert collect(runtime, "sbx-1").status_code == 400
    assert collect(runtime, "sbx-1", "nobody").status_code == 400
    assert collect(runtime, "sbx-1", uuid4()).status_code == 404


@pytest.mark.parametrize(
    "error", [SourceError("The engine does not answer."), StreamUnavailableError("Redis is full.")]
)
def test_an_engine_that_does_not_answer_is_to_be_asked_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(scopes=("samples", "collect"), of_one_account=True)
    runtime.send(runtime.sample())

    def fail(account_id: UUID, sandbox_id: str, *, now: datetime) -> int:
        del account_id, sandbox_id, now
        raise error

    monkeypatch.setattr("metering.collector.collect_sandbox", fail)
    answer = collect(runtime, "sbx-1")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer.json()["detail"] == str(error)


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_nothing_else_can_be_asked(method: str) -> None:
    runtime = Runtime(scopes=("samples", "collect"))
    client = APIClient(headers={"Authorization": f"Bearer {runtime.key}"})
    for path in (PATH, "/api/v1/metering/sandboxes/sbx-1/collect"):
        assert getattr(client, method)(path).status_code == 405


def test_the_openapi_document_has_every_field_and_answer() -> None:
    document = StringIO()
    call_command("spectacular", "--validate", "--format=openapi-json", stdout=document)
    schema = json.loads(document.getvalue())
    parts = schema["components"]["schemas"]
    assert set(parts["Sample"]["properties"]) == set(FIELDS)
    operation = schema["paths"]["/api/v1/metering/samples"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "application/json",
        "application/cloudevents-batch+json",
        "application/cloudevents+json",
    }
    assert {"200", "400", "401", "403", "413", "415", "422", "503"} <= set(operation["responses"])
    in_part = operation["responses"]["422"]["content"]["application/json"]["schema"]
    assert in_part == {"$ref": "#/components/schemas/Intake"}
    assert operation["security"] == [{"meteringKey": []}]
    assert "/api/v1/metering/sandboxes/{sandbox_id}/collect" in schema["paths"]


@pytest.mark.django_db(transaction=True)
def test_a_runtime_sends_over_a_real_connection(live_server: LiveServer) -> None:
    runtime = Runtime()
    now = datetime.now(UTC)
    sample = runtime.sample(started_at=text_of(now - MINUTE), read_at=text_of(now))
    Host.objects.update(registered_at=now - timedelta(hours=1))
    AccountRegistration.objects.update(registered_at=now - timedelta(hours=1))
    request = urllib.request.Request(  # noqa: S310 - to ourselves
        f"{live_server.url}{PATH}",
        data=json.dumps({"samples": [sample]}).encode(),
        headers={
            "Authorization": f"Bearer {runtime.key}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - to ourselves
        assert answer.status == 200
        assert json.load(answer)["accepted"] == 1
    assert runtime.aggregate(now=now + SECOND) == 1


def test_interval_is_the_installations_own_unless_said(settings: Settings) -> None:
    settings.METERING_INTERVAL_S = 7
    runtime = Runtime()
    runtime.send(runtime.sample())
    (entry,) = stream.read_after(runtime.host.pk, "0-0", limit=2)
    assert unpack(entry.packed).interval_ms == 7000


def test_what_is_counted_adds_up_to_the_call() -> None:
    runtime = Runtime()
    samples = [runtime.sample(), runtime.sample(), runtime.sample(cpu_ns=-1), runtime.sample(x=1)]
    answer = runtime.send(*samples)
    assert answer["accepted"] + answer["duplicates"] + len(answer["rejected"]) == len(samples)


def test_the_page_names_every_field_and_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sample-api.md").read_text()
    for name in (*FIELDS, *Fault, *MeteringKey.Scope.values):
        assert f"`{name}`" in page
