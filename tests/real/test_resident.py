"""The collector that stays, on containers that come and go faster than it passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import docker
import pytest
from django.db.models import Sum

from metering.docker.answers import parse_time
from metering.models import Gap, Host, Life, LifeReading, UsageRecord
from metering.period import to_ms
from tests.processes import running, wait_until
from tests.real.conftest import IMAGE, EventLog, Sandboxes, aggregate_until_done, listening

pytestmark = pytest.mark.real

MS_NS = 10**6
INTERVAL_MS = 2000
CROWD = 100
AT_ONCE = 8
CPU_MICRO, MEMORY_BYTES = 500_000, 16 * 2**20
# Each sleeps for a second, and the engine writes its start down a little after it began.
SHORTEST_MS = 700
# An event comes a little after what it tells of, later when the machine is busy.
EVENT_WITHIN_MS = 2000
# What a sandbox takes to end when it is told to, and is read meanwhile.
FAREWELL_S = 0.2
UNREAD_TAIL_MS = 300
ENDED_EACH_WAY = 4


@dataclass(frozen=True)
class Seen:
    """One of the crowd, as the engine's answers had it; what was removed too soon is None."""

    container_id: str
    started_ns: int | None
    finished_ns: int | None


@dataclass(frozen=True)
class Come:
    """Everything that was run, and the engine's own record of it."""

    host_id: UUID
    events: EventLog
    crowd: list[Seen]
    crowd_s: float
    stopped: list[str]
    ended_alone: list[str]

    def life(self, container_id: str) -> Life:
        return Life.objects.get(host_id=self.host_id, container_id=container_id)

    def unread_ms(self, container_id: str) -> int:
        """Return how long before its end a container was last read."""
        gap = self.unread(container_id)
        return to_ms(gap.end) - to_ms(gap.start)

    def unread(self, container_id: str) -> Gap:
        life, reason = self.life(container_id), Gap.Reason.ENDED_BETWEEN_READINGS
        return Gap.objects.get(life=life, meter="counters", reason=reason)


@pytest.fixture(scope="module")
def sandboxes(engine: docker.DockerClient, account_id: UUID) -> Sandboxes:
    del engine
    return Sandboxes(account_id)


@pytest.fixture(scope="module")
def resident(
    host_id: UUID, service_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    log = tmp_path_factory.mktemp("resident") / "log"
    host = Host.objects.filter(pk=host_id)
    arguments = ("manage.py", "collect", "--host", host.get().name)
    with running(*arguments, env=service_environment, log=log):
        wait_until(host.filter(pass_count__gt=0).exists, seconds=30, what=f"a pass; log in {log}")
        yield log


@pytest.fixture(scope="module")
def come(
    engine: docker.DockerClient, resident: Path, sandboxes: Sandboxes, host_id: UUID
) -> Iterator[Come]:
    """Have containers come and go, and return when all of them are aggregated."""
    with listening(sandboxes) as events:
        stopped, ended_alone = end_some(sandboxes)
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            crowd = list(
                threads.map(lambda number: run_one(engine, sandboxes, number), range(CROWD))
            )
        crowd_s = time.monotonic() - begun
        sandboxes.remove()
        lives = Life.objects.filter(host_id=host_id)
        wait_until(
            lambda: not lives.filter(gone_at__isnull=True).exists(),
            seconds=15,
            what=f"the end of every life; log in {resident}",
        )
        aggregate_until_done(host_id)
        yield Come(host_id, events, crowd, crowd_s, stopped, ended_alone)


def end_some(sandboxes: Sandboxes) -> tuple[list[str], list[str]]:
    """Stop busy containers, and let others end, at other moments between two passes each."""
    busy = "while :; do :; done"
    steps_s = [number * INTERVAL_MS / 1000 / ENDED_EACH_WAY for number in range(ENDED_EACH_WAY)]
    farewell = f"trap 'sleep {FAREWELL_S}; exit' TERM; {busy}"
    stopped = [sandboxes.start("stopped", farewell, "--cpus=0.3") for _ in steps_s]
    ended_alone = [
        sandboxes.start("ended-alone", f"({busy}) & sleep {2 + step_s}", "--cpus=0.1")
        for step_s in steps_s
    ]
    time.sleep(INTERVAL_MS / 1000)
    begun = time.monotonic()
    for container_id, step_s in zip(stopped, steps_s, strict=True):
        time.sleep(max(begun + step_s - time.monotonic(), 0))
        sandboxes.docker("stop", container_id)
    for container_id in ended_alone:
        sandboxes.docker("wait", container_id)
    return stopped, ended_alone


def run_one(engine: docker.DockerClient, sandboxes: Sandboxes, number: int) -> Seen:
    """Run a container for a second. Every other one is removed by the engine, as by `--rm`."""
    api = engine.api
    removes_itself = number % 2 == 0
    limits = api.create_host_config(
        auto_remove=removes_itself,
        network_mode="none",
        cpu_period=100_000,
        cpu_quota=CPU_MICRO // 10,
        mem_limit=MEMORY_BYTES,
    )
    labels = dict(label.removeprefix("--label=").split("=") for label in sandboxes.labels("crowd"))
    command = ["sleep", "1"]
    container_id = api.create_container(IMAGE, command, labels=labels, host_config=limits)["Id"]
    api.start(container_id)
    started_ns = finished_ns = None
    if not removes_itself:
        api.wait(container_id)
        state = api.inspect_container(container_id)["State"]
        started_ns, finished_ns = parse_time(state["StartedAt"]), parse_time(state["FinishedAt"])
        api.remove_container(container_id)
    return Seen(container_id, started_ns, finished_ns)


def ran_ms(life: Life) -> int:
    assert life.ended_at is not None
    return to_ms(life.ended_at) - to_ms(life.started_at)


def test_each_of_a_crowd_has_one_life_within_the_engines_own_times(come: Come) -> None:
    lives = Life.objects.filter(host_id=come.host_id, sandbox__sandbox_id="crowd")
    assert lives.count() == CROWD
    for seen in come.crowd:
        life = come.life(seen.container_id)
        [told_start_ns] = come.events.times_ns(seen.container_id, "start")
        [told_end_ns] = come.events.times_ns(seen.container_id, "die")
        assert 0 <= told_start_ns - life.started_ns < EVENT_WITHIN_MS * MS_NS
        assert life.ended_at is not None
        ended_ms = to_ms(life.ended_at)
        assert 0 <= told_end_ns // MS_NS - ended_ms < EVENT_WITHIN_MS
        assert ran_ms(life) >= SHORTEST_MS
        if seen.finished_ns is not None:
            assert life.started_ns == seen.started_ns
            assert ended_ms >= seen.finished_ns // MS_NS


def test_the_crowds_running_time_is_the_engines_and_what_is_unmeasured_has_a_gap(
    come: Come,
) -> None:
    total_ms = at_least_ms = at_most_ms = 0
    for seen in come.crowd:
        life = come.life(seen.container_id)
        sums = UsageRecord.objects.filter(life=life).aggregate(
            running=Sum("running_ms"),
            measured=Sum("measured_ms"),
            cpu=Sum("cpu_allocated_ns"),
            memory=Sum("memory_allocated_byte_ms"),
        )
        gaps = Gap.objects.filter(life=life)
        gap_ms = {
            meter: sum(to_ms(gap.end) - to_ms(gap.start) for gap in gaps if gap.meter == meter)
            for meter in ("memory", "counters")
        }
        total_ms += sums["running"]
        started_ms = to_ms(life.started_at)
        # By the record of those the engine kept for a while, and by its events of all.
        finished_ms = (seen.finished_ns or 0) // MS_NS
        at_least_ms += finished_ms - started_ms if finished_ms else SHORTEST_MS
        at_most_ms += come.events.times_ns(seen.container_id, "die")[0] // MS_NS - started_ms
        assert sums["running"] == ran_ms(life)
        assert sums["measured"] + gap_ms["memory"] == sums["running"]
        assert sums["cpu"] == sums["running"] * CPU_MICRO
        assert sums["memory"] == sums["running"] * MEMORY_BYTES
        # Its counters were read up to the end, or a gap says from when on they were not.
        read_ms = to_ms(life.ended_at or life.started_at) - gap_ms["counters"]
        assert to_ms(life.started_at) <= read_ms
    assert at_least_ms <= total_ms <= at_most_ms


def test_a_stopped_sandbox_is_read_once_more_when_it_is_told_to_end(come: Come) -> None:
    for container_id in come.stopped:
        told_ms = come.events.times_ns(container_id, "kill")[0] // MS_NS
        assert to_ms(come.unread(container_id).start) >= told_ms
        assert LifeReading.objects.get(life=come.life(container_id)).cpu_ns > 0
    # One of them may find the machine busy.
    unread_ms = sorted(come.unread_ms(container_id) for container_id in come.stopped)
    assert unread_ms[-2] < UNREAD_TAIL_MS


def test_one_that_ends_unannounced_is_unread_since_the_last_pass(come: Come) -> None:
    unread_ms = [come.unread_ms(container_id) for container_id in come.ended_alone]
    assert UNREAD_TAIL_MS < max(unread_ms) <= INTERVAL_MS + EVENT_WITHIN_MS
