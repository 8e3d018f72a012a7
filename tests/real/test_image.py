"""The image: built on Debian's packages, run as the compose file does, on real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import NAMESPACE_DNS, uuid4, uuid5

import docker
import psycopg
import pytest
import yaml
from django.conf import settings
from psycopg import sql

from soulbox.celery import QUEUES
from tests.deployment.test_compose import SERVICES
from tests.processes import end_group, wait_until
from tests.real.conftest import run_docker
from tests.soulbox.processes import PROJECT

# Building takes a minute where nothing else runs.
pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

BASE = "soulbox-base:bookworm"
BUILD_TIMEOUT_S = 1000
PATIENCE_S = 180
[_COLLECTOR] = yaml.safe_load_all(
    (PROJECT / "deploy" / "k8s" / "base" / "collector.yaml").read_text()
)
REGISTER = _COLLECTOR["spec"]["template"]["spec"]["initContainers"][0]["command"]
# Of the test's Redis, which has 16; the tests themselves use the first.
BROKER, STREAMS, CACHE = 10, 11, 12


def _bridge() -> str:
    """Return the address at which containers reach this machine."""
    told = run_docker("network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}")
    network = json.loads(told)[0]
    # An engine that found its bridge made already does not say it: it is the first address.
    return str(network.get("Gateway") or next(ip_network(network["Subnet"]).hosts()))


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _built() -> str:
    name = f"soulbox-test:{uuid4()}"
    subprocess.run([PROJECT / ".ci" / "base-image"], check=True, timeout=BUILD_TIMEOUT_S)
    subprocess.run(
        # What runs the tests is installed.
        ["make", "--assume-old=.venv/installed", "image", f"IMAGE={name}", f"BASE_IMAGE={BASE}"],
        cwd=PROJECT,
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return name


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> Iterator[str]:
    """Build the image as `make image` does, on a base of Debian's packages."""
    del engine
    missing = [name for name in ("debootstrap", "haproxy", "make") if shutil.which(name) is None]
    if not os.environ.get("CI") and (missing or os.geteuid() != 0):
        pytest.skip(f"needs root and Debian's {', '.join(missing) or 'debootstrap'}")
    # CI builds it while the linters work.
    name = os.environ.get("SOULBOX_TEST_IMAGE") or _built()
    yield name
    # A gigabyte, which takes a busy disk longer than anything else that is asked of the engine.
    left = ("image", "prune", "--force", "--filter", "label=soulbox.stage=build")
    for command in (("rmi", "--force", name), left):
        subprocess.run(
            ["docker", *command], check=True, stdout=subprocess.DEVNULL, timeout=BUILD_TIMEOUT_S
        )


@pytest.fixture(scope="module")
def database(committed: None, service_environment: dict[str, str]) -> Iterator[str]:
    """Make an empty database beside that of the tests; return its name."""
    del committed
    name = f"image_{uuid4().hex}"
    owner = unquote(service_environment["DATABASE_OWNER_URL"])

    def run(statement: str) -> None:
        user, _, rest = owner.removeprefix("postgres://").partition("@")
        host, _, known = rest.rpartition("/")
        with psycopg.connect(host=host, user=user, dbname=known, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

    run("CREATE DATABASE {}")
    yield name
    run("DROP DATABASE {} WITH (FORCE)")


@dataclass(frozen=True)
class Installation:
    image: str
    environment: Mapping[str, str]
    folder: Path

    def arguments(self, service: str) -> list[str]:
        """Return what the compose file says of a service, as arguments of `docker run`."""
        it = SERVICES[service]
        environment = [f"--env={name}={value}" for name, value in self.environment.items()]
        assert it["read_only"]
        return [
            *environment,
            "--read-only",
            *(f"--tmpfs={path}" for path in it["tmpfs"]),
            *(f"--cap-drop={name}" for name in it["cap_drop"]),
            *(f"--security-opt={name}" for name in it["security_opt"]),
            f"--memory={it['mem_limit']}",
            f"--pids-limit={it['pids_limit']}",
        ]

    @contextmanager
    def running(self, service: str, command: Sequence[str] | None = None) -> Iterator[str]:
        """Run a service of the compose file in a container; yield its id."""
        command = SERVICES[service].get("command", []) if command is None else command
        container = run_docker(
            "run", "--detach", *self.arguments(service), self.image, *map(str, command)
        )
        try:
            yield container
        finally:
            (self.folder / f"{service}.log").write_text(run_docker_logs(container))
            run_docker("rm", "--force", container)

    def sang(self) -> set[str]:
        """Return the queues of which a canary came back."""
        with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
            return {queue for (queue,) in connection.execute("SELECT queue FROM soulbox_canary")}

    def run(self, *command: str, options: Sequence[str] = ()) -> str:
        """Run a command in a container of its own; return what it printed."""
        return subprocess.run(
            ["docker", "run", "--rm", *self.arguments("migrate"), *options, self.image, *command],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=BUILD_TIMEOUT_S,
        ).stdout


def run_docker_logs(container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", container],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def is_healthy(service: str, container: str) -> bool:
    """Return what the compose file's check says, run in the container."""
    test = [word.replace("$$", "$") for word in SERVICES[service]["healthcheck"]["test"]]
    command = ["sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:]
    return subprocess.run(["docker", "exec", container, *command], check=False).returncode == 0


@pytest.fixture(scope="module")
def installation(
    image: str,
    database: str,
    service_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """Bring the test's PostgreSQL and Redis, which listen on sockets, to the containers."""
    bridge, folder = _bridge(), tmp_path_factory.mktemp("servers")
    servers = Path(unquote(urlsplit(service_environment["DATABASE_URL"]).netloc.split("@")[1]))
    redis = Path(urlsplit(settings.REDIS_URL).path)
    configuration = folder / "haproxy.cfg"
    postgresql_port, redis_port = _free_port(bridge), _free_port(bridge)
    lines = (
        "defaults",
        "  mode tcp",
        "  timeout connect 5s",
        "  timeout client 1h",
        "  timeout server 1h",
        "listen postgresql",
        f"  bind {bridge}:{postgresql_port}",
        f"  server here unix@{servers}/.s.PGSQL.5432",
        "listen redis",
        f"  bind {bridge}:{redis_port}",
        f"  server here unix@{redis}",
    )
    configuration.write_text("".join(f"{line}\n" for line in lines))
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", configuration], start_new_session=True, cwd=folder
    )
    roles = {
        name: unquote(service_environment[name]).split("@")[0]
        for name in ("DATABASE_URL", "DATABASE_OWNER_URL")
    }
    at = f"{bridge}:{postgresql_port}/{database}"
    try:
        yield Installation(
            image,
            {
                **{name: f"{role}@{at}" for name, role in roles.items()},
                "REDIS_URL": f"redis://{bridge}:{redis_port}/{BROKER}",
                "STREAM_REDIS_URL": f"redis://{bridge}:{redis_port}/{STREAMS}",
                "CACHE_REDIS_URL": f"redis://{bridge}:{redis_port}/{CACHE}",
                "SECRET_KEY": "of-a-test",
            },
            folder,
        )
    finally:
        end_group(process, signal.SIGTERM)


def ready(container: str) -> tuple[int, dict[str, Any]]:
    """Return how `/ready` answers; 0 where nobody does yet."""
    address = run_docker(
        "inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", container
    )
    try:
        with urllib.request.urlopen(f"http://{address}:8000/ready", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)
    except (OSError, ValueError):
        return 0, {}


def waiting_for(status: int, container: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_come() -> bool:
        nonlocal found
        got, found = ready(container)
        return got == status

    try:
        wait_until(has_come, seconds=PATIENCE_S, what=f"/ready with {status}")
    except TimeoutError as error:
        error.add_note(f"{found}\n{run_docker_logs(container)}")
        raise
    return found


def test_the_image_has_what_runs_and_nothing_that_builds(image: str) -> None:
    [told] = json.loads(run_docker("inspect", image))
    assert told["Config"]["User"] == "10001:10001"
    assert told["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    looks = """
        set -eu
        test "$(id -u)" = 10001
        for name in pip gcc make; do ! command -v $name; done
        ! python -c 'import pip'
        test ! -e /build -a ! -e /opt/pip -a ! -e /root/.cache
        ls -A /srv/soulbox | sort | tr '\n' ' '
    """
    found = run_docker("run", "--rm", image, "sh", "-c", looks).split()
    ours = ["LICENSE", "billing", "manage.py", "metering", "payments", "soulbox", "staticfiles"]
    assert found == ours


def test_nothing_of_it_can_be_written_by_who_runs_it(image: str) -> None:
    writable = (
        "find / -xdev -writable -not -type l -not -path '/tmp*' -not -path '/var/tmp*' -print"
    )
    found = run_docker("run", "--rm", image, "sh", "-c", f"{writable} 2>/dev/null || true").split()
    kernels = ("/proc", "/dev", "/sys", "/run/lock", "/var/lock")
    assert [path for path in found if not path.startswith(kernels)] == []


def test_it_migrates_serves_and_works(installation: Installation) -> None:
    worker = list(SERVICES["worker-billing"]["command"])
    worker[worker.index("--queues") + 1] = ",".join(QUEUES)
    with installation.running("web") as web, installation.running("beat") as beat:
        # A web process that is new before its migrations serves nobody yet.
        wait_until(
            lambda: "migrate" in waiting_for(503, web)["parts"]["migrations"]["problem"],
            seconds=60,
            what="it to say what it waits for",
        )
        installation.run("python", "manage.py", "migrate", "--verbosity", "0")
        parts = waiting_for(200, web)["parts"]
        assert all(part["ok"] for part in parts.values())
        assert is_healthy("web", web)
        assert not is_healthy("beat", beat)
        with installation.running("worker-billing", worker) as working:
            # As the manifests do on a node; again when its pod comes back.
            for _ in range(2):
                node = installation.run(*REGISTER, options=["--env=NODE_NAME=node-1"])
                assert f"node-1 is {uuid5(NAMESPACE_DNS, 'node-1')}" in node
            wait_until(
                lambda: installation.sang() == set(QUEUES),
                seconds=PATIENCE_S,
                what="a canary of each queue",
            )
            assert is_healthy("beat", beat)
            assert is_healthy("worker-billing", working)
