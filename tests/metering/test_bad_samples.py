"""Samples that are refused: each is named and counted, and costs its neighbours nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from metering import stream
from metering.meters import Meter
from metering.models import Refusal
from metering.samples import unpack
from tests.metering.runtime import MINUTE, NOON, SECOND, Runtime, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


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
