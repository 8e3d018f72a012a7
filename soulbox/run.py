"""`make run`: everything on one machine, under one process manager."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from honcho import process
from honcho.compat import ProcessManager
from honcho.environ import parse_procfile
from honcho.manager import Manager

from metering.docker import DockerEngine
from metering.services import register_host
from metering.simulator import SCHEME
from metering.source import SourceError
from soulbox import environment, stripe_here
from soulbox.demo_data import DemoLogins
from soulbox.lifeline import end_with_parent

# The machine that `make run` meters. Fixed: its stream and its queue carry this name.
LOCAL_HOST_ID = UUID("00000000-0000-4000-8000-000000000001")
ADDRESS = "127.0.0.1"
PORTS_TRIED = 100
LAST_PORT = 65535
LOCAL_STRIPE = "stripe"
ENGINE_TIMEOUT_S = 3
# True, and of no use to somebody who tries this on a machine of their own: Celery runs as root
# where `make run` does, and static files come from the packages, not from a folder.
EXPECTED_WARNINGS = ("You're running the worker with superuser privileges", "No directory at")
_LEFT_TO_THE_MANAGER = (signal.SIGINT, signal.SIGTERM)
STOPPED_BY_A_SIGNAL = {128 + signal.SIGINT, 128 + signal.SIGTERM}


class NoFreePortError(Exception):
    """Neither the wanted port nor one of those after it is free; the message names it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two servers listen, on this machine's own address."""

    web: int
    flower: int
    # Of the local Stripe; None: STRIPE_API_KEY names a real one.
    stripe: int | None = None


@dataclass(frozen=True, slots=True)
class MeteredHost:
    """What is metered here: a Docker engine, or the simulator and why."""

    endpoint: str
    why_simulated: str


def choose_ports() -> Ports:
    """Return free ports, those that the variables name or the next. Raises NoFreePortError."""
    web = free_port("WEB_PORT")
    flower = free_port("FLOWER_PORT", other_than=(web,))
    if environment.text("STRIPE_API_KEY"):
        return Ports(web, flower)
    return Ports(web, flower, free_port("STRIPE_PORT", other_than=(web, flower)))


def free_port(name: str, *, other_than: Collection[int] = ()) -> int:
    """Return the port that the variable names, or the next free one. Raises NoFreePortError."""
    wanted = environment.integer(name)
    for port in range(wanted, min(wanted + PORTS_TRIED, LAST_PORT + 1)):
        with socket.socket() as probe:
            # As the servers do; a port that was just left is free for them.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
        if port not in other_than:
            return port
    raise NoFreePortError(f"{name}={wanted}: neither this port nor one soon after it is free.")


def find_host(account_id: UUID) -> MeteredHost:
    """Return the Docker engine of DOCKER_HOST if it answers, else the simulator."""
    endpoint = environment.text("DOCKER_HOST")
    try:
        DockerEngine(endpoint, concurrency=1, timeout_s=ENGINE_TIMEOUT_S).list_containers()
    except SourceError as error:
        return MeteredHost(f"{SCHEME}?account={account_id}", why_simulated=str(error))
    return MeteredHost(endpoint, why_simulated="")


def meter_host(host: MeteredHost, *, now: datetime) -> None:
    """Have this machine metered. Safe to repeat."""
    name = socket.gethostname()
    register_host(host_id=_host_id(), name=name, endpoint=host.endpoint, now=now)


def _host_id() -> UUID:
    given = environment.text("METERING_HOST_ID")
    return UUID(given) if given else LOCAL_HOST_ID


def child_environment(ports: Ports, logins: DemoLogins) -> dict[str, str]:
    """Return the environment of the processes in the Procfile."""
    return {
        # Whoever tries this may try signing up too; the mail lies in a folder of SOULBOX_HOME.
        "SIGN_UP": "open",
        **os.environ,
        **_local_stripe(ports),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": ",".join(f"ignore:{text}" for text in EXPECTED_WARNINGS),
        "SOULBOX_HOME": str(settings.HOME),
        "PUBLIC_URL": environment.text("PUBLIC_URL") or f"http://{ADDRESS}:{ports.web}",
        "WEB_PORT": str(ports.web),
        "FLOWER_PORT": str(ports.flower),
        "METERING_HOST_ID": str(_host_id()),
        # By the environment, since every user can read the arguments of every process.
        "FLOWER_BASIC_AUTH": f"{logins.admin}:{logins.admin_password}",
        "FLOWER_UNAUTHENTICATED_API": "",
    }


def _local_stripe(ports: Ports) -> dict[str, str]:
    """Return what the local Stripe and those who ask it need to know; nothing, if there is none."""
    if ports.stripe is None:
        return {}
    here = stripe_here.write(settings.HOME, ports.stripe)
    return {
        "STRIPE_PORT": str(here.port),
        "STRIPE_API_KEY": here.api_key,
        "STRIPE_API_BASE": here.url,
        "STRIPE_WEBHOOK_SECRET": here.webhook_secret,
        "PAYMENTS_RETURN_URL": environment.text("PAYMENTS_RETURN_URL")
        or f"http://{ADDRESS}:{ports.web}/payment-methods?back=1",
        "STRIPE_WEBHOOK_URL": f"http://{ADDRESS}:{ports.web}{stripe_here.WEBHOOK_PATH}",
    }


def run_processes(child_environ: Mapping[str, str]) -> int:
    """Run what the Procfile says until a signal comes or one process ends; return the status.

    Being stopped by Ctrl-C or SIGTERM is 0.
    """
    manager = _Manager()
    manager._process_ctor = _Process  # noqa: SLF001 - the one place where honcho takes its class
    manager._procmgr = _MainProcessesFirst()  # noqa: SLF001 - the same
    procfile = parse_procfile((settings.BASE_DIR / "Procfile").read_text())
    for name, command in procfile.processes.items():
        if name == LOCAL_STRIPE and "STRIPE_WEBHOOK_URL" not in child_environ:
            continue
        # Without a shell in between, which would not pass the signals on.
        manager.add_process(name, f"exec {command}", env=dict(child_environ), cwd=settings.BASE_DIR)
    with ExitStack() as on_error:
        # When nobody reads what the processes say any more (`make run | head`), Python would
        # wait for forks that wait to be read; ending outright makes the kernel end them.
        on_error.push(_end_outright)
        manager.loop()
        on_error.pop_all()
    return 0 if manager.returncode in STOPPED_BY_A_SIGNAL else manager.returncode or 1


def _end_outright(_kind: object, error: BaseException | None, _trace: object) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"run ends: {error!r}\n".encode())
    os._exit(1)


class _Manager(Manager):  # type: ignore[misc]  # honcho has no types
    """A manager that can be stopped while it is still starting its processes."""

    def terminate(self) -> None:
        """End every process, and with that the loop."""
        if not self._all_started():
            # Honcho does not know all their numbers yet; the kernel ends them with this process.
            with suppress(RuntimeError):
                sys.stdout.flush()
            os._exit(0)
        super().terminate()

    def _system_print(self, data: str) -> None:
        """Say something, unless a signal came in the middle of saying something else.

        Python runs a signal's handler even inside a write, which it then refuses to enter again.
        """
        with suppress(RuntimeError):
            super()._system_print(data)

    def _any_stopped(self) -> bool:
        """Return whether a process has ended, also one whose fork was killed before it said so."""
        for entry in self._processes.values():
            fork = entry["process"]
            if entry.get("returncode") is None and not fork.is_alive() and self.events.empty():
                entry["returncode"] = fork.exitcode or 1
        return bool(super()._any_stopped())


def _become_command(fork: int) -> None:
    """Undo what the fork ignores, and be told, not killed, when the fork ends."""
    for number in _LEFT_TO_THE_MANAGER:
        signal.signal(number, signal.SIG_DFL)
    # A worker that is told finishes the task it has.
    end_with_parent(fork, signal.SIGTERM)


class _Process(process.Process):  # type: ignore[misc]  # honcho has no types
    """A process that ends with `run` itself, even when that is killed outright."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._manager = os.getpid()

    def run(self, *arguments: Any, **options: Any) -> None:
        """Run the command in this fork of the manager."""
        # A fork that ended on Ctrl-C by itself could not say that its command has.
        for number in _LEFT_TO_THE_MANAGER:
            signal.signal(number, signal.SIG_IGN)
        end_with_parent(self._manager, signal.SIGKILL)
        become_command = partial(_become_command, os.getpid())
        self._child_ctor = partial(process.Popen, preexec_fn=become_command)
        super().run(*arguments, **options)


class _MainProcessesFirst(ProcessManager):  # type: ignore[misc]  # honcho has no types
    """Ask the main process alone to end. Its children would otherwise drop their tasks."""

    def terminate(self, pid: int) -> None:
        """Send SIGTERM. A process that is gone is as wanted."""
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
