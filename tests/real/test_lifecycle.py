"""What happens to real containers in their lives: restarted, paused, renamed, out of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import docker
import pytest
from django.db import connections
from django.db.models import QuerySet, Sum

from metering.collector import collect_host, collect_storage
from metering.models import (
    Gap,
    Host,
    Life,
    LifeReading,
    NetworkUsageRecord,
    Sandbox,
    StorageReading,
    StorageUsageRecord,
    UsageRecord,
)
from metering.period import to_ms
from metering.sources import apart, open_source
from tests.processes import wait_until
from tests.real.conftest import (
    CpuWatch,
    EventLog,
    Ran,
    Sandboxes,
    aggregate_until_done,
    listening,
    net_dev,
    run_docker,
)

pytestmark = pytest.mark.real

MIB = 2**20
MS_NS = 10**6
INTERVAL_S = 2
BUSY = "while :; do :; done"
IDLE = "sleep 600"
# The kernel's counter is seen every 50 ms; a busy machine may take longer to get round to it.
SEEN_WITHIN_MS = 300
# An event comes a few milliseconds after what it tells of.
EVENT_WITHIN_MS = 300


class Passes:
    """Passes over a host, two seconds apart. Whoever holds `between` has none go on meanwhile."""

    def __init__(self, host_id: UUID) -> None:
        self.host_id = host_id
        self.between = threading.RLock()
        self._count = 0
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        deadline = time.monotonic()
        try:
            while not self._stop.is_set():
                self.make_one()
                deadline += INTERVAL_S
                self._stop.wait(max(deadline - time.monotonic(), 0))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test has to tell
            self._failure = error
        finally:
            connections.close_all()

    def make_one(self) -> None:
        with self.between:
            collect_host(self.host_id, now=datetime.now(UTC))
            self._count += 1

    def wait(self, passes: int) -> None:
        """Return after so many more passes."""
        until = self._count + passes
        wait_until(
            lambda: self._count >= until or self._failure is not None,
            seconds=30,
            what=f"{passes} passes",
        )
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


@dataclass(frozen=True)
class Stage:
    """Where the stories below are played."""

    sandboxes: Sandboxes
    passes: Passes
    events: EventLog
    network_names: tuple[str, str]

    def gateway(self, network: str) -> str:
        form = "{{(index .IPAM.Config 0).Gateway}}"
        return self.sandboxes.docker("network", "inspect", "--format", form, network)

    def settled_net_dev(self, pid: int) -> dict[str, tuple[int, int]]:
        """Return the kernel's counters between which and the last reading nothing was sent."""
        for _ in range(20):
            before = net_dev(pid)
            self.passes.make_one()
            if net_dev(pid) == before:
                return before
        raise TimeoutError("There is no end of traffic.")


@dataclass
class Story:
    """What was seen from outside of one container."""

    container_id: str
    lives_ran: list[Ran] = field(default_factory=list)
    cpu: CpuWatch | None = None
    network: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    storage_read_ms: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def restart(stage: Stage) -> Story:
    sandboxes, passes = stage.sandboxes, stage.passes
    story = Story(sandboxes.start("restarted", BUSY, "--cpus=0.2"))
    story.cpu = CpuWatch(story.container_id)
    passes.wait(2)
    sandboxes.docker("restart", "-t", "0", story.container_id)
    passes.wait(2)
    second = sandboxes.ran(story.container_id)
    # Two more between two passes: of the first of them only events and the next start tell.
    with passes.between:
        sandboxes.docker("restart", "-t", "0", story.container_id)
        third = sandboxes.ran(story.container_id)
        sandboxes.docker("restart", "-t", "0", story.container_id)
    passes.wait(2)
    sandboxes.docker("kill", story.container_id)
    story.lives_ran = [second, third, sandboxes.ran(story.container_id)]
    story.cpu.stop()
    return story


def pause(stage: Stage) -> Story:
    sandboxes, passes = stage.sandboxes, stage.passes
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=16"
    limits = ("--cpus=0.25", "--memory=64m")
    story = Story(sandboxes.start("paused", f"{fill}; {BUSY}", *limits))
    passes.wait(2)
    sandboxes.docker("pause", story.container_id)
    passes.wait(2)
    sandboxes.docker("unpause", story.container_id)
    passes.wait(1)
    with passes.between:
        passes.make_one()
        sandboxes.docker("pause", story.container_id)
        time.sleep(0.7)
        sandboxes.docker("unpause", story.container_id)
        time.sleep(0.2)
        passes.make_one()
    passes.wait(1)
    sandboxes.docker("kill", story.container_id)
    story.lives_ran = [sandboxes.ran(story.container_id)]
    return story


def rename(stage: Stage) -> Story:
    story = Story(stage.sandboxes.start("renamed", IDLE))
    stage.passes.wait(1)
    stage.sandboxes.docker("rename", story.container_id, f"soulbox-test-{story.container_id[:12]}")
    stage.passes.wait(2)
    return story


def change_networks(stage: Stage) -> Story:
    sandboxes, passes = stage.sandboxes, stage.passes
    first, second = stage.network_names
    story = Story(sandboxes.start("networks", IDLE, f"--network={first}"))
    pid = sandboxes.ran(story.container_id).pid

    def ping(network: str, *, size: int) -> None:
        options = ("-q", "-c", "2", "-s", str(size), stage.gateway(network))
        sandboxes.docker("exec", story.container_id, "ping", *options)

    ping(first, size=1000)
    sandboxes.docker("network", "connect", second, story.container_id)
    passes.wait(1)
    ping(second, size=20_000)
    with passes.between:
        story.network.append(stage.settled_net_dev(pid))
        sandboxes.docker("network", "disconnect", second, story.container_id)
    passes.wait(1)
    sandboxes.docker("network", "connect", second, story.container_id)
    passes.wait(1)
    ping(second, size=2000)
    with passes.between:
        story.network.append(stage.settled_net_dev(pid))
        sandboxes.docker("kill", story.container_id)
    return story


def run_out_of_memory(stage: Stage) -> Story:
    hungry = "sleep 3; exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    story = Story(stage.sandboxes.start("hungry", hungry, "--memory=16m"))
    stage.passes.wait(1)
    stage.sandboxes.docker("wait", story.container_id)
    story.lives_ran = [stage.sandboxes.ran(story.container_id)]
    return story


def update(stage: Stage) -> Story:
    sandboxes, passes = stage.sandboxes, stage.passes
    story = Story(sandboxes.start("updated", IDLE, "--cpus=0.2", "--memory=32m"))
    passes.wait(2)
    more = ("--cpus=0.4", "--memory=64m", "--memory-swap=-1")
    sandboxes.docker("update", *more, story.container_id)
    passes.wait(2)
    sandboxes.docker("kill", story.container_id)
    story.lives_ran = [sandboxes.ran(story.container_id)]
    return story


def store(stage: Stage) -> Story:
    """Two containers with a volume of 6 MiB, and 3 and 5 MiB of their own."""
    sandboxes, passes, host_id = stage.sandboxes, stage.passes, stage.passes.host_id
    volume = f"--volume=soulbox-test-{host_id}:/shared"

    def write(mib: int, path: str) -> str:
        return f"dd if=/dev/zero of={path} bs=1M count={mib}"

    def read() -> int:
        aggregate_until_done(host_id)
        collect_storage(host_id, now=datetime.now(UTC))
        aggregate_until_done(host_id)
        life = Life.objects.get(host_id=host_id, container_id=second)
        return StorageReading.objects.get(life=life).read_ms

    story = Story(
        sandboxes.start("first", f"{write(3, '/own')}; {write(6, '/shared/it')}; {IDLE}", volume)
    )
    # The one that was created first has the volume; the engine tells it in whole seconds.
    time.sleep(1.1)
    second = sandboxes.start("second", f"{write(5, '/own')}; {IDLE}", volume)
    story.others.append(second)
    passes.wait(2)
    story.storage_read_ms.append(read())
    sandboxes.docker("kill", second)
    passes.wait(1)
    sandboxes.docker("rm", "-f", story.container_id)
    passes.wait(1)
    story.storage_read_ms.append(read())
    sandboxes.docker("rm", second)
    return story


STORIES: tuple[Callable[[Stage], Story], ...] = (
    *(restart, pause, rename, change_networks),
    *(run_out_of_memory, update, store),
)


@contextmanager
def networks(names: tuple[str, str]) -> Iterator[None]:
    made = []
    try:
        for name in names:
            run_docker("network", "create", name)
            made.append(name)
        yield
    finally:
        for name in made:
            run_docker("network", "rm", name)


@pytest.fixture(scope="module")
def sandboxes(engine: docker.DockerClient, account_id: UUID) -> Sandboxes:
    del engine
    return Sandboxes(account_id)


@pytest.fixture(scope="module")
def events(sandboxes: Sandboxes, host_id: UUID) -> Iterator[EventLog]:
    try:
        names = f"soulbox-test-{host_id}-a", f"soulbox-test-{host_id}-b"
        with networks(names), listening(sandboxes) as events:
            yield events
    finally:
        run_docker("volume", "rm", "-f", f"soulbox-test-{host_id}")


@pytest.fixture(scope="module")
def stories(sandboxes: Sandboxes, host_id: UUID, events: EventLog) -> dict[str, Story]:
    """Play every story at once, and return when all of it is aggregated."""
    names = f"soulbox-test-{host_id}-a", f"soulbox-test-{host_id}-b"
    passes = Passes(host_id)
    stage = Stage(sandboxes, passes, events, names)

    def play(story: Callable[[Stage], Story]) -> Story:
        try:
            return story(stage)
        finally:
            connections.close_all()

    try:
        with ThreadPoolExecutor(len(STORIES)) as threads:
            told = dict(zip([s.__name__ for s in STORIES], threads.map(play, STORIES), strict=True))
        passes.wait(1)
    finally:
        passes.stop()
    sandboxes.remove()
    collect_host(host_id, now=datetime.now(UTC))
    aggregate_until_done(host_id)
    return told


def lives_of(container_id: str) -> QuerySet[Life]:
    return Life.objects.filter(container_id=container_id).order_by("started_ns")


def ran_ms(life: Life) -> int:
    assert life.ended_at is not None
    return to_ms(life.ended_at) - to_ms(life.started_at)


def summed(life: Life, column: str) -> int:
    return int(UsageRecord.objects.filter(life=life).aggregate(n=Sum(column))["n"] or 0)


def test_each_start_is_a_life_with_the_engines_own_times(stories: dict[str, Story]) -> None:
    first, second, third, fourth = lives_of(stories["restart"].container_id)
    seen_second, seen_third, seen_fourth = stories["restart"].lives_ran
    assert second.started_ns == seen_second.started_ns
    assert fourth.started_ns == seen_fourth.started_ns
    # Only an event tells that the third began, and it comes after the start.
    assert 0 <= third.started_ns - seen_third.started_ns < EVENT_WITHIN_MS * MS_NS
    # An inspection shows the end of the life before.
    ended = {
        first.pk: seen_second.finished_ns,
        second.pk: seen_third.finished_ns,
        fourth.pk: seen_fourth.finished_ns,
    }
    for life in (first, second, third, fourth):
        assert life.ended_at is not None
        if finished_ns := ended.get(life.pk):
            late_ms = to_ms(life.ended_at) - finished_ns // MS_NS
            # Of the second it is over by the next pass, and again there is only an event.
            assert 0 <= late_ms <= (EVENT_WITHIN_MS if life == second else 0)
        assert summed(life, "running_ms") == ran_ms(life)
    for before, after in ((first, second), (second, third), (third, fourth)):
        assert before.ended_at is not None
        assert before.ended_at <= after.started_at


def test_no_life_of_a_restarted_container_has_more_cpu_than_the_kernel_counted(
    stories: dict[str, Story],
) -> None:
    watch = stories["restart"].cpu
    assert watch is not None
    read = 0
    for life in lives_of(stories["restart"].container_id):
        reading = LifeReading.objects.get(life=life)
        assert summed(life, "cpu_ns") == reading.cpu_ns
        started_ms, ended_ms = to_ms(life.started_at), to_ms(life.ended_at or life.started_at)
        until_ms = min(reading.read_ms + SEEN_WITHIN_MS, ended_ms)
        # What the kernel counted after the watch last looked is at most a cpu's whole time.
        unseen_ns = SEEN_WITHIN_MS * MS_NS
        assert reading.cpu_ns <= watch.at(until_ms, since_ms=started_ms) + unseen_ns
        assert reading.cpu_ns <= ran_ms(life) * 0.2 * 1.2 * MS_NS + 10**8
        read += reading.cpu_ns > 0
    assert read == 3


def paused_ms(events: EventLog, container_id: str) -> int:
    began = events.times_ns(container_id, "pause")
    ended = events.times_ns(container_id, "unpause")
    assert len(began) == len(ended) == 2
    return sum(end // MS_NS - begin // MS_NS for begin, end in zip(began, ended, strict=True))


def test_memory_counts_while_paused_and_allocated_cpu_does_not(
    stories: dict[str, Story], events: EventLog
) -> None:
    story = stories["pause"]
    life = lives_of(story.container_id).get()
    not_running_ms = paused_ms(events, story.container_id)
    assert not_running_ms > INTERVAL_S * 1000 / 2
    assert summed(life, "running_ms") == ran_ms(life)
    assert summed(life, "cpu_allocated_ns") == (ran_ms(life) - not_running_ms) * 250_000
    assert summed(life, "memory_allocated_byte_ms") == ran_ms(life) * 64 * MIB
    mean_bytes = summed(life, "memory_byte_ms") / summed(life, "measured_ms")
    assert 14 * MIB < mean_bytes < 24 * MIB
    # Nothing of the time it was paused is missing.
    gaps = Gap.objects.filter(life=life, meter="memory")
    assert {gap.reason for gap in gaps} == {"before_first_sample"}


def test_a_rename_changes_nothing(stories: dict[str, Story]) -> None:
    life = lives_of(stories["rename"].container_id).get()
    assert Sandbox.objects.filter(sandbox_id="renamed").count() == 1
    assert LifeReading.objects.get(life=life).sample_count >= 3
    assert summed(life, "running_ms") == ran_ms(life)


def network_sums(life: Life, name: str) -> tuple[int, int]:
    records = NetworkUsageRecord.objects.filter(interface__life=life, interface__name=name)
    assert all(record.rx_bytes >= 0 and record.tx_bytes >= 0 for record in records)
    sums = records.aggregate(rx=Sum("rx_bytes"), tx=Sum("tx_bytes"))
    return sums["rx"], sums["tx"]


def test_each_interface_counts_for_itself_as_the_kernel_counts_it(
    stories: dict[str, Story],
) -> None:
    life = lives_of(stories["change_networks"].container_id).get()
    before, after = stories["change_networks"].network
    assert network_sums(life, "eth0") == after["eth0"]
    # The one that was taken away and put back has another name: nothing of it falls or is lost.
    assert network_sums(life, "eth1") == before["eth1"]
    assert network_sums(life, "eth2") == after["eth2"]
    assert life.interfaces.count() == 3
    assert min(before["eth1"]) > 2 * 20_000
    assert min(after["eth2"]) > 2 * 2000
    assert not life.counter_resets.exists()


def test_a_container_that_runs_out_of_memory_ends_and_says_so(
    stories: dict[str, Story], events: EventLog
) -> None:
    story = stories["run_out_of_memory"]
    life = lives_of(story.container_id).get()
    [ran] = story.lives_ran
    [oom_ns] = events.times_ns(story.container_id, "oom")
    assert life.ended_at is not None
    assert ran.finished_ns is not None
    assert to_ms(life.ended_at) == ran.finished_ns // MS_NS
    assert life.oom_at is not None
    assert to_ms(life.oom_at) == oom_ns // MS_NS
    assert summed(life, "running_ms") == ran_ms(life)


def test_changed_limits_count_from_the_pass_that_sees_them(
    stories: dict[str, Story], events: EventLog
) -> None:
    story = stories["update"]
    life = lives_of(story.container_id).get()
    [updated_ns] = events.times_ns(story.container_id, "update")
    # Both were doubled, so each says for how long the earlier limit counted.
    cpu_ms, cpu_rest = divmod(ran_ms(life) * 400_000 - summed(life, "cpu_allocated_ns"), 200_000)
    memory_ms, memory_rest = divmod(
        ran_ms(life) * 64 * MIB - summed(life, "memory_allocated_byte_ms"), 32 * MIB
    )
    assert (cpu_rest, memory_rest) == (0, 0)
    assert cpu_ms == memory_ms
    late_ms = to_ms(life.started_at) + cpu_ms - updated_ns // MS_NS
    assert 0 <= late_ms <= INTERVAL_S * 1000 + 500
    assert (life.cpu_limit_micro, life.memory_limit_bytes) == (400_000, 64 * MIB)


def test_storage_is_the_layer_and_a_shared_volume_once(
    stories: dict[str, Story], events: EventLog
) -> None:
    story = stories["store"]
    [second_id] = story.others
    first_ms, second_ms = story.storage_read_ms
    gone_ms = {
        key: events.times_ns(key, "destroy")[0] // MS_NS for key in (story.container_id, second_id)
    }
    expected = {
        story.container_id: 9 * MIB * (gone_ms[story.container_id] - first_ms),
        # With the first of them gone the volume is the second's, stopped as it is.
        second_id: 5 * MIB * (second_ms - first_ms) + 11 * MIB * (gone_ms[second_id] - second_ms),
    }
    for container_id, byte_ms in expected.items():
        life = lives_of(container_id).get()
        records = StorageUsageRecord.objects.filter(life=life).aggregate(
            byte_ms=Sum("storage_byte_ms"), existing=Sum("existing_ms"), measured=Sum("measured_ms")
        )
        assert records["byte_ms"] == byte_ms
        assert records["measured"] == gone_ms[container_id] - first_ms
        [gap] = Gap.objects.filter(life=life, meter="storage")
        assert gap.reason == Gap.Reason.BEFORE_FIRST_SAMPLE
        unmeasured_ms = (gap.end - gap.start) // timedelta(milliseconds=1)
        assert records["existing"] == records["measured"] + unmeasured_ms


def test_a_reading_between_passes_shares_no_open_file_with_them(
    stories: dict[str, Story], sandboxes: Sandboxes, host_id: UUID
) -> None:
    del stories
    container_id = sandboxes.start("apart", IDLE)
    host = Host.objects.get(pk=host_id)
    shared = open_source(host)
    assert [reading.container_id for reading in shared.read([container_id])] == [container_id]
    before = set(Path("/proc/self/fd").iterdir())
    with apart(host, shared) as own:
        assert own is not shared
        assert own.name == shared.name
        assert [reading.container_id for reading in own.read([container_id])] == [container_id]
        assert set(Path("/proc/self/fd").iterdir()) > before
    assert set(Path("/proc/self/fd").iterdir()) == before
