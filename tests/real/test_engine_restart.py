"""An engine that is restarted under its sandboxes, with and without live restore.

The engine is one of the test's own, beside the machine's: nobody else's containers end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import docker
import pytest
from django.db import connections
from django.db.models import Sum

from billing.services import open_account
from metering.models import Gap, Host, Life, LifeReading, UsageRecord
from metering.period import to_ms
from metering.services import register_host
from tests.processes import running, wait_until
from tests.real.conftest import (
    IMAGE,
    CpuWatch,
    Ran,
    Sandboxes,
    aggregate_until_done,
    run_docker,
)

pytestmark = pytest.mark.real

MS_NS = 10**6
INTERVAL_S = 2
HELD_S = 5 * INTERVAL_S
# Longer than memory is held, so that there is a gap.
AWAY_S = HELD_S + 2
CPUS = "0.2"
SEEN_WITHIN_MS = 300
EVENT_WITHIN_MS = 1000
# Before 23.0 an engine's identity is in a file of the whole machine unless it is told another.
IDENTITY_IN_DATA_ROOT = 23
# For an engine on a busy machine; it takes half a second.
ENGINE_WAIT_S = 30
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class OwnEngine:
    """A Docker engine in a folder and a network namespace of its own.

    In the machine's own namespace an engine without a bridge takes away that of the others.
    """

    folder: Path
    version: str
    options: tuple[str, ...]
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.folder}/sock"

    def start(self) -> None:
        config = self.folder / "config.json"
        is_old = int(self.version.split(".")[0]) < IDENTITY_IN_DATA_ROOT
        identity = {"deprecated-key-path": f"{self.folder}/key.json"} if is_old else {}
        config.write_text(json.dumps(identity))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--net", "dockerd", f"--config-file={config}"),
                    *(f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"),
                    *(f"--pidfile={self.folder}/pid", f"--host={self.endpoint}"),
                    *("--bridge=none", "--iptables=false", "--ip-forward=false"),
                    *self.options,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, seconds=ENGINE_WAIT_S, what=f"the engine in {self.folder}")

    def _answers(self) -> bool:
        asked = ["docker", "--host", self.endpoint, "version"]
        return subprocess.run(asked, check=False, capture_output=True, timeout=30).returncode == 0

    def stop(self) -> None:
        """End the engine as its service manager would, and wait for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(ENGINE_WAIT_S)
            self._process = None

    def have_image(self, image_file: Path) -> None:
        run_docker("load", "--input", str(image_file), endpoint=self.endpoint)

    def clean_up(self) -> None:
        """Leave nothing behind: no container, no engine, no mount, no file."""
        try:
            if self._process is None:
                self.start()
            if found := run_docker("ps", "-aq", endpoint=self.endpoint).split():
                run_docker("rm", "-f", *found, endpoint=self.endpoint)
        finally:
            self.stop()
            mounts = Path("/proc/self/mounts").read_text().splitlines()
            below = [mount for mount in (line.split()[1] for line in mounts) if self._has(mount)]
            for mount in sorted(below, reverse=True):
                subprocess.run(["umount", "--lazy", mount], check=True, timeout=30)
            shutil.rmtree(self.folder)

    def _has(self, mount: str) -> bool:
        return Path(mount).is_relative_to(self.folder)


@contextmanager
def own_engine(version: str, *options: str) -> Iterator[OwnEngine]:
    # Not in pytest's folder: the path of a socket has to be short.
    engine = OwnEngine(Path(tempfile.mkdtemp(prefix="soulbox-")), version, options)
    try:
        engine.start()
        yield engine
    finally:
        engine.clean_up()


@dataclass
class Restarted:
    """One engine that was restarted, and what was seen of it and its sandboxes."""

    host_id: UUID
    sandboxes: Sandboxes
    container_id: str = ""
    removing_itself: str = ""
    cpu: CpuWatch | None = None
    before: Ran | None = None
    after: Ran | None = None
    end: Ran | None = None
    stopped_at: datetime = NEVER
    back_at: datetime = NEVER
    problems: list[str] = field(default_factory=list)
    resources: list[tuple[int, int]] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return Host.objects.get(pk=self.host_id)

    def lives(self, container_id: str) -> list[Life]:
        lives = Life.objects.filter(host_id=self.host_id, container_id=container_id)
        return list(lives.order_by("started_ns"))

    def wait_for_passes(self, passes: int) -> None:
        until = self.host.pass_count + passes
        what = f"{passes} passes"
        wait_until(lambda: self.host.pass_count >= until, seconds=30, what=what)

    def be_read_for_a_while(self) -> None:
        """Wait until what began just now was read, and not only in its first moments."""
        self.wait_for_passes(2)
        # A collector that was late makes two passes at once.
        time.sleep(INTERVAL_S)


def resources_of(pid: int) -> tuple[int, int]:
    """Return how many threads and open files a process has."""
    process = Path(f"/proc/{pid}")
    return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))


def restart(
    engine: OwnEngine, seen: Restarted, collector: subprocess.Popen[bytes], *, goes_on: bool
) -> None:
    """Restart the engine under a busy sandbox; start the sandbox again if it does not go on."""
    sandboxes = seen.sandboxes
    alone = ("--network=none", "--stop-timeout=1")
    busy = "while :; do :; done"
    seen.container_id = sandboxes.start("busy", busy, f"--cpus={CPUS}", *alone)
    seen.removing_itself = sandboxes.start("rm", "sleep 600", "--rm", *alone)
    seen.cpu = CpuWatch(seen.container_id)
    seen.before = sandboxes.ran(seen.container_id)
    seen.be_read_for_a_while()
    seen.resources.append(resources_of(collector.pid))

    seen.stopped_at = datetime.now(UTC)
    engine.stop()
    wait_until(lambda: seen.host.problem != "", seconds=20, what="a problem")
    seen.problems.append(seen.host.problem)
    away_s = AWAY_S - (datetime.now(UTC) - seen.stopped_at).total_seconds()
    time.sleep(max(away_s, 0))
    engine.start()
    seen.back_at = datetime.now(UTC)
    wait_until(lambda: seen.host.problem == "", seconds=20, what="no problem")
    seen.problems.append(seen.host.problem)

    seen.after = sandboxes.ran(seen.container_id)
    if not goes_on:
        sandboxes.docker("start", seen.container_id)
    seen.be_read_for_a_while()
    seen.resources.append(resources_of(collector.pid))
    sandboxes.docker("kill", seen.container_id)
    seen.end = sandboxes.ran(seen.container_id)
    seen.cpu.stop()
    seen.wait_for_passes(2)
    sandboxes.remove()
    seen.wait_for_passes(2)
    aggregate_until_done(seen.host_id)


def restart_one(
    folder: Path, version: str, environment: dict[str, str], *options: str
) -> Restarted:
    """Meter an engine of its own while it is restarted."""
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(own_engine(version, *options))
            engine.have_image(folder / "image")
            now = datetime.now(UTC)
            account_id = open_account(name="Restarted", now=now).pk
            seen = Restarted(uuid4(), Sandboxes(account_id, engine.endpoint))
            name = f"docker-{seen.host_id}"
            register_host(host_id=seen.host_id, name=name, endpoint=engine.endpoint, now=now)
            collect = ("manage.py", "collect", "--host", name)
            log = folder / f"{name}.log"
            collector = stack.enter_context(running(*collect, env=environment, log=log))
            seen.wait_for_passes(1)
            restart(engine, seen, collector, goes_on="--live-restore" in options)
            return seen
    finally:
        connections.close_all()


@pytest.fixture(scope="module")
def restarted(
    engine: docker.DockerClient,
    committed: None,
    service_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Restarted]:
    """Restart two engines at once: one that lets its containers go on, one that ends them."""
    del committed
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine")
    folder = tmp_path_factory.mktemp("engines")
    run_docker("save", "--output", str(folder / "image"), IMAGE)
    version = engine.version()["Version"]
    with ThreadPoolExecutor(2) as threads:
        both = {
            "goes on": threads.submit(
                restart_one, folder, version, service_environment, "--live-restore"
            ),
            "ends": threads.submit(restart_one, folder, version, service_environment),
        }
        return {name: future.result() for name, future in both.items()}


def ran_ms(life: Life) -> int:
    assert life.ended_at is not None
    return to_ms(life.ended_at) - to_ms(life.started_at)


def summed(life: Life, column: str) -> int:
    return int(UsageRecord.objects.filter(life=life).aggregate(n=Sum(column))["n"] or 0)


def check_accounted(life: Life) -> None:
    """Every millisecond it ran is measured or has a gap, and no counter is billed beyond itself."""
    gaps = Gap.objects.filter(life=life, meter="memory")
    gap_ms = sum(to_ms(gap.end) - to_ms(gap.start) for gap in gaps)
    assert summed(life, "running_ms") == ran_ms(life)
    assert summed(life, "measured_ms") + gap_ms == ran_ms(life)
    assert summed(life, "cpu_ns") == LifeReading.objects.get(life=life).cpu_ns
    assert summed(life, "cpu_allocated_ns") == ran_ms(life) * int(float(CPUS) * 10**6)
    assert not life.counter_resets.exists()


def check_cpu(seen: Restarted, life: Life) -> None:
    """The last reading is what the kernel counted at its time."""
    assert seen.cpu is not None
    reading = LifeReading.objects.get(life=life)
    assert life.ended_at is not None
    unread = Gap.objects.filter(life=life, reason=Gap.Reason.ENDED_BETWEEN_READINGS)
    # None where a pass met what was just dead and still had its counters: it is read to its end,
    # and counts no less than the kernel did by then.
    read_at = unread.get().start if unread else life.ended_at
    if not unread:
        assert reading.cpu_ns >= seen.cpu.at(to_ms(read_at), since_ms=to_ms(life.started_at))
    read_ms, since_ms = to_ms(read_at), to_ms(life.started_at)
    before = seen.cpu.at(read_ms - SEEN_WITHIN_MS, since_ms=since_ms)
    after = seen.cpu.at(read_ms + SEEN_WITHIN_MS, since_ms=since_ms)
    assert 0 < before <= reading.cpu_ns <= after + SEEN_WITHIN_MS * MS_NS


@pytest.mark.parametrize("name", ["goes on", "ends"])
def test_the_hosts_problem_shows_while_the_engine_is_away_and_clears_after(
    restarted: dict[str, Restarted], name: str
) -> None:
    while_away, after = restarted[name].problems
    assert "The Docker engine at" in while_away
    assert after == ""
    assert restarted[name].host.problem_since is None


def test_with_live_restore_the_same_life_goes_on_and_only_memory_has_a_gap(
    restarted: dict[str, Restarted],
) -> None:
    seen = restarted["goes on"]
    [life] = seen.lives(seen.container_id)
    assert seen.before is not None
    assert seen.after is not None
    assert seen.end is not None
    assert seen.before.started_ns == seen.after.started_ns == life.started_ns
    assert seen.end.finished_ns is not None
    assert to_ms(life.ended_at or life.started_at) == seen.end.finished_ns // MS_NS
    check_accounted(life)
    check_cpu(seen, life)
    gap = Gap.objects.get(life=life, meter="memory", reason=Gap.Reason.COLLECTOR_DOWN)
    # Held for ten seconds after the last pass that had the engine; then the first one again.
    last_read_at = gap.start - timedelta(seconds=HELD_S)
    interval = timedelta(seconds=INTERVAL_S)
    assert seen.stopped_at - 2 * interval <= last_read_at <= seen.stopped_at + interval
    assert seen.back_at - interval <= gap.end <= seen.back_at + 2 * interval


def test_without_it_the_life_ends_when_the_engine_says_and_the_next_counts_from_zero(
    restarted: dict[str, Restarted],
) -> None:
    seen = restarted["ends"]
    first, second = seen.lives(seen.container_id)
    assert seen.before is not None
    assert seen.after is not None
    assert seen.end is not None
    assert seen.after.finished_ns is not None
    assert seen.end.finished_ns is not None
    assert first.started_ns == seen.before.started_ns
    assert to_ms(first.ended_at or first.started_at) == seen.after.finished_ns // MS_NS
    assert second.started_ns == seen.end.started_ns
    assert to_ms(second.ended_at or second.started_at) == seen.end.finished_ns // MS_NS
    assert first.ended_at is not None
    assert first.ended_at < seen.back_at < second.started_at
    for life in (first, second):
        check_accounted(life)
        check_cpu(seen, life)


def test_a_sandbox_that_the_engine_removed_on_its_way_out_is_not_billed_for_the_outage(
    restarted: dict[str, Restarted],
) -> None:
    seen = restarted["ends"]
    [life] = seen.lives(seen.removing_itself)
    assert life.ended_at is not None
    assert seen.stopped_at - timedelta(seconds=2 * INTERVAL_S) < life.ended_at
    assert life.ended_at < seen.stopped_at + timedelta(seconds=INTERVAL_S)
    [gap] = Gap.objects.filter(life=life, meter=Gap.WHOLE_LIFE)
    assert gap.start == life.ended_at
    assert gap.end > seen.back_at


def test_with_live_restore_it_is_billed_up_to_its_own_end(restarted: dict[str, Restarted]) -> None:
    seen = restarted["goes on"]
    [life] = seen.lives(seen.removing_itself)
    assert life.ended_at is not None
    assert life.ended_at > seen.stopped_at + timedelta(seconds=HELD_S)
    assert not Gap.objects.filter(life=life, meter=Gap.WHOLE_LIFE).exists()


@pytest.mark.parametrize("name", ["goes on", "ends"])
def test_an_outage_leaves_no_thread_and_no_open_file_behind(
    restarted: dict[str, Restarted], name: str
) -> None:
    (threads, files), (threads_after, files_after) = restarted[name].resources
    # A call to the engine that is going on has a thread and a few files of its own.
    assert threads_after <= threads + 2
    assert files_after <= files + 10
