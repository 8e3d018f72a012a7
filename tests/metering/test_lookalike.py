"""The engine as a source, against one that is told what to do and what to get wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metering.docker import DockerEngine
from metering.samples import State
from metering.source import UNKNOWN_GPUS, Action, Listed, Reading, SourceError
from tests.lookalike import RING_ENTRIES, Fault, Load, LookAlike

MIB = 2**20
LOAD = Load(
    cpu_ns_per_ms=250_000,
    memory_bytes=64 * MIB,
    page_cache_bytes=3 * MIB,
    disk_read_bytes_per_ms=3,
    disk_write_bytes_per_ms=10,
    network_bytes_per_ms={"eth0": (100, 200), "eth1": (1, 0), "lo": (9, 9)},
    layer_bytes=5 * MIB,
)
TIMEOUT_S = 5


@dataclass
class Clock:
    """The look-alike's time. It starts a while ago, so that no event is still to come."""

    ns: int = field(default_factory=lambda: (time.time_ns() // 10**9 - 100) * 10**9)

    def pass_ms(self, ms: int) -> None:
        self.ns += ms * 10**6


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def script(tmp_path: Path, clock: Clock) -> Iterator[LookAlike]:
    with LookAlike(tmp_path / "engine.sock", now_ns=lambda: clock.ns) as script:
        yield script


@pytest.fixture
def engine(script: LookAlike) -> DockerEngine:
    return engine_at(script.endpoint)


def engine_at(endpoint: str, timeout_s: float = TIMEOUT_S) -> DockerEngine:
    return DockerEngine(endpoint, concurrency=512, timeout_s=timeout_s)


def a_while_ago() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=5)


def ids_of(readings: list[Reading]) -> set[str]:
    return {reading.container_id for reading in readings}


@pytest.mark.parametrize("cgroup_version", [1, 2])
def test_every_figure_is_rate_times_running_time(
    script: LookAlike, engine: DockerEngine, clock: Clock, cgroup_version: int
) -> None:
    script.cgroup_version = cgroup_version
    key = script.add("a", load=LOAD)
    clock.pass_ms(7001)
    assert engine.read([key]) == [
        Reading(
            container_id=key,
            read_ms=clock.ns // 10**6,
            cpu_ns=250_000 * 7001,
            memory_bytes=64 * MIB,
            disk_read_bytes=3 * 7001,
            disk_write_bytes=10 * 7001,
            interfaces={"eth0": (100 * 7001, 200 * 7001), "eth1": (7001, 0)},
        )
    ]


def test_a_restart_begins_a_life_that_counts_from_zero(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    key = script.add("a", load=LOAD)
    clock.pass_ms(50)
    script.restart(key)
    restarted_ns = clock.ns
    clock.pass_ms(3)
    [container] = engine.inspect([key])
    assert (container.started_ns, container.finished_ns) == (restarted_ns, restarted_ns)
    [reading] = engine.read([key])
    assert reading.cpu_ns == 250_000 * 3


def test_three_hundred_containers_at_a_second_a_call_take_little_more_than_one(
    script: LookAlike, engine: DockerEngine
) -> None:
    keys = [script.add(f"sandbox-{number}", load=LOAD) for number in range(300)]
    script.stats_delay_s = 1
    start = time.monotonic()
    readings = engine.read(keys)
    assert time.monotonic() - start < 3
    assert ids_of(readings) == set(keys)
    assert script.most_in_flight == 300


def test_no_more_calls_are_in_flight_than_allowed(script: LookAlike) -> None:
    keys = [script.add(f"sandbox-{number}") for number in range(30)]
    script.stats_delay_s = 0.02
    readings = DockerEngine(script.endpoint, concurrency=7, timeout_s=TIMEOUT_S).read(keys)
    assert [reading.container_id for reading in readings] == keys
    assert script.most_in_flight == 7


def test_a_container_that_answers_zeros_is_left_out(
    script: LookAlike, engine: DockerEngine
) -> None:
    stopped, lying, fine = (script.add(name, load=LOAD) for name in ("a", "b", "c"))
    script.stop(stopped)
    script.faults[lying] = Fault.ZEROS
    assert ids_of(engine.read([stopped, lying, fine, "0" * 64])) == {fine}


@pytest.mark.parametrize("fault", list(Fault))
def test_an_answer_that_is_wrong_costs_its_container_only(
    script: LookAlike, engine: DockerEngine, fault: Fault
) -> None:
    wrong, fine = script.add("a"), script.add("b")
    script.faults[wrong] = fault
    assert ids_of(engine.read([wrong, fine])) == {fine}


@pytest.mark.parametrize(
    "fault", [Fault.MALFORMED, Fault.MISSING_FIELDS, Fault.NULLS, Fault.WRONG_TYPES]
)
def test_an_inspection_that_cannot_be_read_costs_its_container_only(
    script: LookAlike, engine: DockerEngine, fault: Fault
) -> None:
    wrong, fine = script.add("a"), script.add("b")
    script.faults[wrong] = fault
    assert [container.container_id for container in engine.inspect([wrong, fine])] == [fine]
    assert engine.find_pids([wrong, fine]).keys() == {fine}


def test_an_inspection_that_the_engine_refuses_is_no_sign_that_the_container_is_gone(
    script: LookAlike, engine: DockerEngine
) -> None:
    wrong, fine = script.add("a"), script.add("b")
    script.faults[wrong] = Fault.ERROR
    with pytest.raises(SourceError, match="said 500: something broke"):
        engine.inspect([wrong, fine])


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.MALFORMED, Fault.WRONG_TYPES])
def test_an_engine_whose_answers_cannot_be_read_says_so(
    script: LookAlike, engine: DockerEngine, fault: Fault
) -> None:
    script.add("a")
    engine.engine_id()
    script.engine_fault = Fault.MALFORMED if fault is Fault.WRONG_TYPES else fault
    for ask in (engine.list_containers, engine.read_storage):
        with pytest.raises(SourceError, match="Docker engine"):
            ask()
    script.engine_fault = fault
    for ask_info in (engine.offer, engine.engine_id):
        with pytest.raises(SourceError, match="Docker engine"):
            ask_info()


def test_a_slow_container_costs_its_reading_only(script: LookAlike) -> None:
    slow, fine = script.add("a"), script.add("b")
    engine = engine_at(script.endpoint, timeout_s=0.3)
    engine.engine_id()
    script.slow_s[slow] = 30
    assert ids_of(engine.read([slow, fine])) == {fine}
    with pytest.raises(SourceError, match="in time"):
        engine.read([slow])
    with pytest.raises(SourceError, match="in time"):
        engine.inspect([slow, fine])


def test_an_engine_that_goes_away_is_named_and_used_again_when_it_is_back(
    script: LookAlike, engine: DockerEngine
) -> None:
    key = script.add("a")
    assert engine.list_containers() == [Listed(key, State.RUNNING)]
    script.go_away()
    for _ in range(2):
        with pytest.raises(SourceError, match=f"{script.endpoint} did not answer"):
            engine.list_containers()
        with pytest.raises(SourceError, match="did not answer"):
            engine.read([key])
        with pytest.raises(SourceError, match="did not answer"):
            engine.inspect([key])
    script.come_back()
    assert engine.list_containers() == [Listed(key, State.RUNNING)]
    assert ids_of(engine.read([key])) == {key}


def test_calls_that_are_cut_are_told(script: LookAlike, engine: DockerEngine) -> None:
    key = script.add("a")
    engine.engine_id()
    script.stats_delay_s = 30
    cut = threading.Timer(0.2, script.go_away)
    cut.start()
    with pytest.raises(SourceError, match="did not answer"):
        engine.read([key])
    cut.join()


def test_of_more_events_than_an_engine_remembers_the_newest_come_back(
    script: LookAlike, engine: DockerEngine
) -> None:
    keys = [script.add(f"sandbox-{number}") for number in range(3)]
    for number in range(300):
        script.update(keys[number % 3], nano_cpus=10**9 + number)
    events = engine.events_between(a_while_ago(), datetime.now(UTC))
    assert not events.is_complete
    assert len(events.seen) == RING_ENTRIES
    assert {event.action for event in events.seen} == {Action.UPDATE}
    assert [event.at_ns for event in events.seen] == sorted(event.at_ns for event in events.seen)


def test_events_that_an_engine_lost_to_others_are_missed(
    script: LookAlike, engine: DockerEngine
) -> None:
    script.add("a")
    other = script.add(None)
    for _ in range(249):
        script.update(other)
    assert engine.events_between(a_while_ago(), datetime.now(UTC)).is_complete
    for _ in range(3):
        script.update(other)
    events = engine.events_between(a_while_ago(), datetime.now(UTC))
    assert not events.is_complete
    assert [event.action for event in events.seen] == [Action.START]


def test_a_life_is_told_by_its_events(script: LookAlike, engine: DockerEngine) -> None:
    key = script.add("a", "acc", labels={"secret": "x"})
    script.add(None)
    script.pause(key)
    script.unpause(key)
    script.rename(key, "another")
    script.update(key, nano_cpus=10**9)
    script.run_out_of_memory(key)
    script.start(key)
    script.remove(key)
    events = engine.events_between(a_while_ago(), datetime.now(UTC)).seen
    assert [event.action for event in events] == [
        Action.CREATE,
        Action.START,
        Action.PAUSE,
        Action.UNPAUSE,
        Action.UPDATE,
        Action.OOM,
        Action.DIE,
        Action.START,
        Action.KILL,
        Action.DIE,
        Action.DESTROY,
    ]
    assert {event.container_id for event in events} == {key}
    labels = {"soulbox.sandbox_id": "a", "soulbox.account_id": "acc"}
    assert all(event.labels == labels for event in events)


def test_events_are_of_a_half_open_span(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    key = script.add("a")
    clock.pass_ms(1000)
    at = datetime.fromtimestamp(clock.ns // 10**9, UTC)
    script.pause(key)
    clock.pass_ms(1000)
    script.unpause(key)
    within = engine.events_between(at, at + timedelta(seconds=1))
    assert [(event.action, event.at_ns) for event in within.seen] == [
        (Action.PAUSE, clock.ns - 10**9)
    ]
    before = engine.events_between(a_while_ago(), at)
    assert [event.action for event in before.seen] == [Action.CREATE, Action.START]


def test_events_are_watched_as_they_come(script: LookAlike, engine: DockerEngine) -> None:
    key = script.add("a")
    script.add(None)
    with closing(engine.watch_events(a_while_ago())) as events:
        assert [next(events).action for _ in range(2)] == [Action.CREATE, Action.START]
        script.pause(key)
        assert next(events).action is Action.PAUSE
        closing_soon = threading.Timer(0.1, events.close)
        closing_soon.start()
        assert list(events) == []
        closing_soon.join()
    assert list(events) == []


def test_a_stream_may_be_closed_before_between_and_twice(
    script: LookAlike, engine: DockerEngine
) -> None:
    script.add("a")
    never = engine.watch_events(a_while_ago())
    never.close()
    assert list(never) == []
    between = engine.watch_events(a_while_ago())
    next(between)
    between.close()
    between.close()
    assert list(between) == []


def test_a_stream_that_ends_raises(script: LookAlike, engine: DockerEngine) -> None:
    script.add("a")
    events = engine.watch_events(a_while_ago())
    assert next(events).action is Action.CREATE
    script.go_away()
    with pytest.raises(SourceError, match="Docker engine"):
        list(events)
    with pytest.raises(SourceError, match="did not answer"):
        next(engine.watch_events(a_while_ago()))


def test_an_engine_that_gives_no_events_in_time_is_told(script: LookAlike) -> None:
    engine = engine_at(script.endpoint, timeout_s=0.2)
    script.delay_s = 30
    with pytest.raises(SourceError, match="in time"):
        next(engine.watch_events(a_while_ago()))


def test_a_label_of_megabytes_costs_its_own_events_only(
    script: LookAlike, engine: DockerEngine
) -> None:
    script.add("a", labels={"soulbox.long": "x" * 5 * MIB})
    key = script.add("b")
    with closing(engine.watch_events(a_while_ago())) as events:
        assert next(events).container_id == key


def test_a_label_of_fifty_megabytes_costs_no_other_container_anything(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    long = script.add("a", labels={"soulbox.label.long": "x" * 50 * MIB}, load=LOAD)
    key = script.add("b", labels={"soulbox.label.team": "search"}, load=LOAD)
    clock.pass_ms(1000)
    assert key in {container.container_id for container in engine.list_containers()}
    inspected = {container.container_id: container for container in engine.inspect([long, key])}
    assert inspected[key].labels["soulbox.label.team"] == "search"
    assert ids_of(engine.read([long, key])) == {long, key}


def test_an_inspection_tells_limits_gpus_and_first_process(
    script: LookAlike, engine: DockerEngine
) -> None:
    limited = script.add("a", nano_cpus=1_500_000_000, memory_limit_bytes=MIB)
    every_gpu = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}
    with_gpus = script.add("b", device_requests=[every_gpu], network_mode="host")
    script.stop(limited)
    first, second = engine.inspect([limited, with_gpus])
    assert (first.cpu_limit_micro, first.memory_limit_bytes) == (1_500_000, MIB)
    assert first.state is State.STOPPED
    assert (second.cpu_limit_micro, second.gpu_count) == (None, UNKNOWN_GPUS)
    assert second.network_unmetered == "host"
    assert "secret" not in repr(first)
    assert engine.find_pids([limited, with_gpus, "0" * 64]) == {
        with_gpus: script.containers[with_gpus].pid
    }


def test_storage_is_a_layer_and_volumes_each_counted_once(
    script: LookAlike, engine: DockerEngine
) -> None:
    script.volume_bytes = {"shared": 100, "own": 10, "unknown": -1}
    first = script.add("a", load=LOAD, volumes=["shared"])
    script.containers[first].created_ns -= 10**9
    second = script.add("b", volumes=["shared", "own", "unknown"])
    script.stop(second)
    script.add(None, volumes=["own"])
    before_ms = time.time_ns() // 10**6
    found = {reading.container_id: reading for reading in engine.read_storage()}
    assert {key: (r.layer_bytes, r.volume_bytes) for key, r in found.items()} == {
        first: (5 * MIB, 100),
        second: (0, 10),
    }
    assert all(before_ms <= r.read_ms <= time.time_ns() // 10**6 for r in found.values())


def test_an_engine_is_spoken_to_in_a_version_that_both_know(script: LookAlike) -> None:
    # As of 2025: the oldest that we know is refused.
    script.oldest_api, script.newest_api = (1, 44), (1, 52)
    engine = engine_at(script.endpoint)
    assert engine.list_containers() == []
    # Replaced by an older one: a call fails, and the next asks anew.
    script.oldest_api, script.newest_api = (1, 12), (1, 41)
    with pytest.raises(SourceError, match="too new"):
        engine.list_containers()
    assert engine.list_containers() == []
    script.oldest_api, script.newest_api = (1, 12), (1, 40)
    with pytest.raises(SourceError, match="too new"):
        engine.list_containers()
    with pytest.raises(SourceError, match=r"1\.12 to 1\.40; 1\.41 to"):
        engine.list_containers()


@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_an_engine_is_asked_over_tcp_too(script: LookAlike, scheme: str) -> None:
    key = script.add("a")
    engine = engine_at(f"{scheme}://{script.tcp_address}/")
    assert ids_of(engine.read([key])) == {key}
    with closing(engine.watch_events(a_while_ago())) as events:
        assert next(events).container_id == key
    with pytest.raises(SourceError, match="did not answer"):
        engine_at(f"https://{script.tcp_address}").list_containers()


@pytest.mark.parametrize("endpoint", ["ssh://host", "nonsense", "unix://", "tcp://", "tcp://[x"])
def test_an_endpoint_that_cannot_be_asked_is_refused(endpoint: str) -> None:
    with pytest.raises(SourceError, match="endpoint"):
        engine_at(endpoint)


def test_counters_that_fall_inside_a_life_fall(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    key = script.add("a", load=LOAD)
    clock.pass_ms(20)
    script.reset_counters(key)
    clock.pass_ms(3)
    [reading] = engine.read([key])
    assert reading.cpu_ns == 250_000 * 3


def test_a_load_that_changes_counts_on(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    key = script.add("a", load=LOAD)
    clock.pass_ms(20)
    script.change_load(key, Load(cpu_ns_per_ms=1))
    clock.pass_ms(3)
    [reading] = engine.read([key])
    assert reading.cpu_ns == 250_000 * 20 + 3
    assert script.counters(key, reading.read_ms).cpu_ns == reading.cpu_ns


def test_a_paused_container_keeps_its_memory_and_uses_no_more(
    script: LookAlike, engine: DockerEngine, clock: Clock
) -> None:
    key = script.add("a", load=LOAD)
    clock.pass_ms(20)
    script.pause(key)
    clock.pass_ms(20)
    [reading] = engine.read([key])
    assert (reading.cpu_ns, reading.memory_bytes) == (250_000 * 20, 64 * MIB)
    assert engine.list_containers() == [Listed(key, State.PAUSED)]
    script.unpause(key)
    clock.pass_ms(1)
    [reading] = engine.read([key])
    assert reading.cpu_ns == 250_000 * 21
