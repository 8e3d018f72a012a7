"""Samples that are sent: through Redis and the fold, to usage."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pytest_django.fixtures import Settings

from metering import stream
from metering.meters import GB, Meter
from metering.models import (
    AccountRegistration,
    Gap,
    Host,
    Life,
    LifeReading,
    Refusal,
)
from metering.samples import unpack
from metering.silence import close_silent_hosts
from tests.metering.runtime import MINUTE, NOON, Runtime, text_of
from tests.metering.sent_life import CLOSED_FORM, a_life_of_ten_minutes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


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


def test_interval_is_the_installations_own_unless_said(settings: Settings) -> None:
    settings.METERING_INTERVAL_S = 7
    runtime = Runtime()
    runtime.send(runtime.sample())
    (entry,) = stream.read_after(runtime.host.pk, "0-0", limit=2)
    assert unpack(entry.packed).interval_ms == 7000
