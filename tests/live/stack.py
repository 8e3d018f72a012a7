"""The whole stack on this machine: each process of the compose file, and its monitors."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from uuid import UUID, uuid4

from tests.live import compose, monitors
from tests.live.pager import Pager
from tests.live.process import Process
from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.processes import wait_until

HERE = "127.0.0.1"
STARTED_WITHIN_S = 90
METERING_INTERVAL_S = 5


@dataclass(frozen=True)
class Stack:
    """What runs, and where it answers."""

    processes: Mapping[str, Process]
    stripe: LocalStripe
    pager: Pager
    web: str
    flower: str
    prometheus: str
    alertmanager: str

    def workers_of(self, *queues: str) -> list[Process]:
        """Return the workers that serve one of the queues."""
        return [
            process
            for process in self.processes.values()
            if set(queues) & set(_after("--queues", process.command).split(","))
        ]

    def firing(self) -> dict[str, str]:
        """Return the alerts that Alertmanager has, by name: active or suppressed."""
        alerts = monitors.ask(self.alertmanager, "/api/v2/alerts")
        return {one["labels"]["alertname"]: one["status"]["state"] for one in alerts}

    def series(self, query: str) -> list[dict[str, str]]:
        """Return the labels of each series that Prometheus has of a query at this moment."""
        answer = monitors.ask(self.prometheus, "/api/v1/query", query=query)
        return [one["metric"] for one in answer["data"]["result"]]


@contextmanager
def running(
    environment: Mapping[str, str],
    host_ids: tuple[UUID, UUID],
    stripe: LocalStripe,
    folder: Path,
) -> Iterator[Stack]:
    """Run the stack on the services that the environment names."""
    web, flower, prometheus, alertmanager = (f"{HERE}:{port}" for port in free_ports(4))
    with ExitStack() as stack:
        pager = stack.enter_context(Pager())
        values = {
            "METERING_HOST_ID": str(host_ids[0]),
            "METERING_INTERVAL": str(METERING_INTERVAL_S),
            "FLOWER_BASIC_AUTH": f"flower:{uuid4().hex}",
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "HTTPS_ONLY": "no",
            "METRICS_TOKEN": uuid4().hex,
            # People ask by this name; Prometheus by another one, as in a network of containers.
            "ALLOWED_HOSTS": HERE,
        }
        moved = {**environment, "STRIPE_API_BASE": stripe.url, "FLOWER_ADDRESS": HERE}
        addresses = {"0.0.0.0:8000": web, "--port=5555": f"--port={flower.split(':')[1]}"}
        processes = _ours(values, host_ids[1], addresses, moved, folder)
        monitoring = (
            _prometheus(
                folder,
                {"web:8000": web.replace(HERE, "localhost"), "flower:5555": flower},
                prometheus,
                alertmanager,
                values["METRICS_TOKEN"],
            ),
            _alertmanager(folder, pager, alertmanager),
        )
        for process in (*processes.values(), *monitoring):
            process.start()
            stack.callback(process.stop)
        # All at once, before each is waited for.
        for process in processes.values():
            stack.callback(process.ask_to_end)
        answers = Stack(processes, stripe, pager, web, flower, prometheus, alertmanager)
        stripe.webhooks(f"http://{web}/api/v1/webhook/stripe")
        wait_until(lambda: _is_up(answers), seconds=STARTED_WITHIN_S, what=f"the stack: {folder}")
        yield answers


def free_ports(count: int) -> list[int]:
    """Return so many ports that nobody has."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HERE, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _ours(
    values: Mapping[str, str],
    second_host: UUID,
    addresses: Mapping[str, str],
    moved: Mapping[str, str],
    folder: Path,
) -> dict[str, Process]:
    """Return the compose file's processes, and a collector of a second host beside them."""
    found = {name: one for name, one in compose.services(values).items() if name != "migrate"}
    other = compose.services({**values, "METERING_HOST_ID": str(second_host)})["collector"]
    found["second-collector"] = other
    return processes_of(found, addresses, moved, folder)


def processes_of(
    found: Mapping[str, compose.Service],
    addresses: Mapping[str, str],
    moved: Mapping[str, str],
    folder: Path,
) -> dict[str, Process]:
    """Return services as processes of this machine: at other addresses, in another environment."""
    words = " ".join(word for one in found.values() for word in one.command)
    unknown = [address for address in addresses if address not in words]
    assert not unknown, f"docker-compose.yml has no {unknown} any more"
    processes = {}
    for name, one in found.items():
        command = []
        for said in one.command:
            word = said
            for address, here in {**addresses, "/tmp/": f"{folder}/{name}-"}.items():  # noqa: S108 - the container's
                word = word.replace(address, here)
            command.append(word.replace("collector@", f"{name}@"))
        environment = {**one.environment, **moved}
        processes[name] = Process(command, environment, folder / f"{name}.log")
    return processes


def migrate(values: Mapping[str, str], moved: Mapping[str, str], folder: Path) -> None:
    """Do what the compose file's migrate job does."""
    job = compose.services(values)["migrate"]
    Process(job.command, {**job.environment, **moved}, folder / "migrate.log").run()


def _prometheus(
    folder: Path, targets: Mapping[str, str], address: str, alertmanager: str, token: str
) -> Process:
    file = monitors.prometheus(folder, targets, alertmanager, token)
    command = (
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )
    return Process(command, {}, folder / "prometheus.log")


def _alertmanager(folder: Path, pager: Pager, address: str) -> Process:
    command = (
        "prometheus-alertmanager",
        f"--config.file={monitors.alertmanager(folder, pager.url)}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        # One alone gossips with nobody.
        "--cluster.listen-address=",
    )
    return Process(command, {}, folder / "alertmanager.log")


def _is_up(stack: Stack) -> bool:
    """Return whether all that is scraped was, and each host was read."""
    try:
        waiting = stack.series("up == 0 or soulbox_host_seen_seconds > 1e9")
        return bool(stack.series("soulbox_host_seen_seconds")) and not waiting
    except (OSError, HTTPException):
        return False


def _after(option: str, command: Sequence[str]) -> str:
    words = list(command)
    return words[words.index(option) + 1] if option in words else ""
