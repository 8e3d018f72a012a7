"""The processes of docker-compose.yml on this machine, on the embedded services."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import redis
from django.conf import settings

from soulbox.celery import app
from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE, Embedded
from tests.live import compose
from tests.live.process import Process
from tests.live.stack import HERE, free_ports, processes_of
from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.processes import wait_until
from tests.soak.installation import HOST_NAME

STARTED_WITHIN_S = 120
LEFT_OUT = ("migrate", "flower")
WORKER = "worker-"
LOCAL_STRIPE = "local Stripe"
WEBHOOK_PATH = "/api/v1/webhook/stripe"


@dataclass(frozen=True, slots=True)
class Crew:
    """What runs, and where the web server answers."""

    processes: Mapping[str, Process]
    port: int
    stripe: LocalStripe

    def pids(self) -> dict[str, int]:
        """Return the main process of each, the two servers' and the local Stripe's too."""
        with redis.Redis.from_url(settings.REDIS_URL) as server:
            redis_pid = int(server.info("server")["process_id"])
        pid_file = settings.HOME / "postgresql" / "postmaster.pid"
        postgresql_pid = int(pid_file.read_text().splitlines()[0])
        ours = {name: process.pid for name, process in self.processes.items() if process.is_started}
        return {
            **ours,
            "redis": redis_pid,
            "postgresql": postgresql_pid,
            LOCAL_STRIPE: self.stripe.pid,
        }

    def stop(self, *names: str) -> None:
        """End these, all at once; each finishes what it has."""
        for name in names:
            self.processes[name].ask_to_end()
        for name in names:
            self.processes[name].stop()

    def ended(self) -> list[str]:
        """Return which have ended by themselves."""
        return [name for name, process in self.processes.items() if process.has_ended]

    def errors(self) -> list[str]:
        """Return the lines of their logs that are errors."""
        return [
            f"{name}: {line}"
            for name, process in self.processes.items()
            for line in process.log.read_text(errors="replace").splitlines()
            if " ERROR " in line or " CRITICAL " in line
        ]


@contextmanager
def running(host_id: UUID, stripe: LocalStripe, home: Path) -> Iterator[Crew]:
    """Run them; webhooks of the local Stripe come in once the web server listens."""
    (port,) = free_ports(1)
    values = {
        "METERING_HOST_ID": str(host_id),
        "METERING_INTERVAL": "2",
        # What is folded goes at once, so that the stream's length is what waits.
        "METERING_STREAM_RETENTION": "0",
        "BILLING_GRACE_MINUTES": "0",
        "STRIPE_API_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "HTTPS_ONLY": "no",
        "METRICS_TOKEN": uuid4().hex,
        "LOG_FORMAT": "line",
        "EMAIL_URL": f"file://{home / 'mail'}",
    }
    moved = {**_services(), "STRIPE_API_BASE": stripe.url}
    services = {name: one for name, one in compose.services(values).items() if name not in LEFT_OUT}
    # Which process reads a host as large as this one: docs/adr/0005.
    services["collector"] = replace(
        services["collector"],
        command=("python", "manage.py", "collect", "--host", HOST_NAME),
    )
    logs = home / "processes"
    logs.mkdir()
    with ExitStack() as stack:
        processes = processes_of(services, {"0.0.0.0:8000": f"{HERE}:{port}"}, moved, logs)
        for process in processes.values():
            process.start()
            stack.callback(process.stop)
        for process in processes.values():
            stack.callback(process.ask_to_end)
        wait_until(lambda: _answers(port), seconds=STARTED_WITHIN_S, what="the web server")
        workers = sum(name.startswith(WORKER) for name in processes)
        wait_until(
            lambda: len(app.control.ping(timeout=1) or ()) == workers,
            seconds=STARTED_WITHIN_S,
            what="the workers",
        )
        stripe.webhooks(f"http://{HERE}:{port}{WEBHOOK_PATH}")
        yield Crew(processes, port, stripe)


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HERE, port), 1).close()
    except OSError:
        return False
    return True


def _services() -> dict[str, str]:
    """Return where the embedded servers are, for who is not to start any."""
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("it runs on embedded services only")
    return {
        "DATABASE_URL": embedded.database_url(APPLICATION_ROLE),
        "DATABASE_OWNER_URL": embedded.database_url(OWNER_ROLE),
        "REDIS_URL": embedded.redis_url(0),
        "STREAM_REDIS_URL": embedded.redis_url(1),
        "CACHE_REDIS_URL": embedded.redis_url(2),
        "SECRET_KEY": settings.SECRET_KEY,
    }
