from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import docker
import pytest
from pytest_django.plugin import DjangoDbBlocker

from billing.services import open_account
from metering.aggregator import aggregate_host
from metering.docker.answers import parse_time
from metering.services import register_host
from tests.conftest import wipe_committed_rows
from tests.processes import running, wait_until

ENDPOINT = "unix:///var/run/docker.sock"
IMAGE = "busybox"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The real engine. In CI it has to be there; elsewhere a missing one skips, saying so."""
    try:
        client = docker.DockerClient(base_url=ENDPOINT, timeout=60)
        client.images.get(IMAGE)
    except docker.errors.DockerException as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Docker engine with an image named {IMAGE}: {error}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def committed(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let a module's tests share rows that are committed, and wipe them after it."""
    del django_db_setup
    with django_db_blocker.unblock():
        yield
        wipe_committed_rows()


@pytest.fixture(scope="module")
def account_id(committed: None) -> UUID:
    del committed
    return open_account(name="Loads", now=datetime.now(UTC) - timedelta(days=1)).pk


@pytest.fixture(scope="module")
def host_id(committed: None, engine: docker.DockerClient) -> UUID:
    del committed, engine
    host_id = uuid4()
    register_host(
        host_id=host_id,
        name=f"docker-{host_id}",
        endpoint=ENDPOINT,
        now=datetime.now(UTC) - timedelta(days=1),
    )
    return host_id


@dataclass(frozen=True)
class Workers:
    """A real Celery worker and a real beat; the worker can be replaced by another one."""

    host_id: UUID
    env: dict[str, str]
    folder: Path

    @contextmanager
    def work(self, name: str, **more_env: str) -> Iterator[subprocess.Popen[bytes]]:
        queues = f"collect.{self.host_id},aggregate,default"
        options = ("-Q", queues, "-c", "2", "-n", f"{name}-{self.host_id}@%h")
        arguments = ("-m", "celery", "-A", "soulbox", "worker", *options)
        log = self.folder / f"{name}.log"
        with running(*arguments, env={**self.env, **more_env}, log=log) as process:
            yield process

    @contextmanager
    def beat(self) -> Iterator[None]:
        schedule = str(self.folder / "schedule")
        arguments = ("-m", "celery", "-A", "soulbox", "beat", "-s", schedule)
        with running(*arguments, env=self.env, log=self.folder / "beat.log"):
            yield


@pytest.fixture(scope="module")
def workers(
    host_id: UUID, service_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Workers:
    return Workers(host_id, service_environment, tmp_path_factory.mktemp("workers"))


def run_docker(*arguments: str, endpoint: str = ENDPOINT) -> str:
    """Run the docker command as a person would; return what it printed."""
    return subprocess.run(
        ["docker", "--host", endpoint, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def aggregate_until_done(host_id: UUID) -> None:
    while aggregate_host(host_id, now=datetime.now(UTC)):
        pass


@dataclass(frozen=True)
class Ran:
    """What the engine says of the times of a container's latest life, in ns since 1970."""

    started_ns: int
    finished_ns: int | None
    pid: int


@dataclass(frozen=True)
class Sandboxes:
    """Containers of one account on one engine."""

    account_id: UUID
    endpoint: str = ENDPOINT

    def start(self, sandbox_id: str, command: str, *options: str) -> str:
        """Start a container that runs a shell command; return its id."""
        return self.docker(
            "run", "-d", *self.labels(sandbox_id), *options, IMAGE, "sh", "-c", command
        )

    def labels(self, sandbox_id: str) -> list[str]:
        return [
            f"--label=soulbox.sandbox_id={sandbox_id}",
            f"--label=soulbox.account_id={self.account_id}",
        ]

    def docker(self, *arguments: str) -> str:
        return run_docker(*arguments, endpoint=self.endpoint)

    def ran(self, container_id: str) -> Ran:
        [answer] = json.loads(self.docker("inspect", container_id))
        state = answer["State"]
        started_ns = parse_time(state["StartedAt"])
        assert started_ns is not None
        return Ran(started_ns, parse_time(state["FinishedAt"]), state["Pid"])

    def remove(self) -> None:
        """Remove every container of the account, whatever it does."""

        def are_gone() -> bool:
            found = self.docker("ps", "-aq", f"--filter=label=soulbox.account_id={self.account_id}")
            if not found:
                return True
            # The engine may be removing one of them itself, and says so.
            with suppress(subprocess.CalledProcessError):
                self.docker("rm", "-f", *found.split())
            return False

        wait_until(are_gone, seconds=30, what="the removal of containers")


class EventLog:
    """The engine's own events of one account, heard from outside all the while."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._process = subprocess.Popen(
            [
                *("docker", "--host", sandboxes.endpoint, "events", "--format", "{{json .}}"),
                *("--filter", f"label=soulbox.account_id={sandboxes.account_id}"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._events: list[tuple[str, str, int]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self._events.append((event["Actor"]["ID"], event["Action"], event["timeNano"]))

    def times_ns(self, container_id: str, action: str) -> list[int]:
        """Return when something happened to a container, in order."""
        return [at for key, what, at in list(self._events) if (key, what) == (container_id, action)]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def listening(sandboxes: Sandboxes) -> Iterator[EventLog]:
    """Hear the engine's events; at the end the account's containers are removed."""
    log = EventLog(sandboxes)
    try:
        yield log
    finally:
        sandboxes.remove()
        log.close()


@dataclass
class CpuWatch:
    """The kernel's own cpu counter of one container, read all the while by another thread."""

    container_id: str
    readings: list[tuple[int, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._path = cpu_file(self.container_id)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            try:
                value = self._read()
            except (OSError, ValueError):
                continue
            self.readings.append((time.time_ns() // 10**6, value))

    def _read(self) -> int:
        text = self._path.read_text()
        if self._path.name == "cpu.stat":
            return int(text.split("usage_usec ")[1].split()[0]) * 1000
        return int(text)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, ms: int, *, since_ms: int = 0) -> int:
        """Return the counter at the last reading in `(since_ms, ms]`."""
        return max((value for at, value in self.readings if since_ms < at <= ms), default=0)


def cpu_file(container_id: str) -> Path:
    v1 = Path(f"/sys/fs/cgroup/cpuacct/docker/{container_id}/cpuacct.usage")
    v2 = Path(f"/sys/fs/cgroup/system.slice/docker-{container_id}.scope/cpu.stat")
    return v1 if v1.exists() else v2


def net_dev(pid: int) -> dict[str, tuple[int, int]]:
    """Return the kernel's own counters of a process' interfaces, as received and sent bytes."""
    found: dict[str, tuple[int, int]] = {}
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
        name, _, counters = line.partition(":")
        fields = counters.split()
        found[name.strip()] = int(fields[0]), int(fields[8])
    del found["lo"]
    return found
