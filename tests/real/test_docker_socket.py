"""The read-only proxy before the engine's socket: all that a collector asks passes, nothing else.

Debian's HAProxy runs the configuration that the compose file and the manifests run.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import docker
import pytest
from pytest_django.fixtures import Settings

from metering.collector import collect_host, collect_storage
from metering.docker import DockerEngine
from metering.models import Host, Life, LifeReading
from metering.services import register_host
from metering.source import Action
from tests.deployment.test_compose import SERVICES
from tests.processes import end_group, wait_until
from tests.real.conftest import ENDPOINT, Sandboxes, aggregate_until_done, listening, run_docker
from tests.soulbox.processes import PROJECT

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CONFIGURATION = PROJECT / "deploy" / "haproxy" / "docker-socket.cfg"
SOCKET = ENDPOINT.removeprefix("unix://")
BUSY = "while :; do :; done"
IDLE = "sleep 600"
ID = "0" * 64

REFUSED = [
    # What is not of the collector's.
    ("GET", "/_ping"),
    ("GET", "/v1.41/images/json"),
    ("GET", "/v1.41/volumes"),
    ("GET", "/v1.41/networks"),
    ("GET", "/v1.41/secrets"),
    ("GET", "/v1.41/swarm"),
    ("GET", "/v1.41/version"),
    ("GET", f"/v1.41/containers/{ID}/logs?stdout=1"),
    ("GET", f"/v1.41/containers/{ID}/archive?path=/etc/shadow"),
    ("GET", f"/v1.41/containers/{ID}/export"),
    ("GET", f"/v1.41/containers/{ID}/top"),
    ("GET", f"/v1.41/containers/{ID}/changes"),
    ("GET", f"/v1.41/containers/{ID}/attach/ws"),
    ("GET", f"/v1.41/exec/{ID}/json"),
    ("GET", "/v1.41/images/get?names=busybox"),
    # What changes something.
    ("POST", "/v1.41/containers/create"),
    ("POST", f"/v1.41/containers/{ID}/exec"),
    ("POST", f"/v1.41/containers/{ID}/kill"),
    ("POST", "/v1.41/containers/json"),
    ("PUT", f"/v1.41/containers/{ID}/archive?path=/"),
    ("DELETE", f"/v1.41/containers/{ID}"),
    ("POST", "/v1.41/build"),
    ("POST", "/session"),
    ("HEAD", "/version"),
    ("OPTIONS", "/version"),
    # Ways to write a path so that it is read as another.
    ("GET", "/info"),
    ("GET", "/v1.41/containers/json/"),
    ("GET", "//v1.41/containers/json"),
    ("GET", "/v1.41/containers/../images/json"),
    ("GET", "/v1.41/containers/json/../../images/json"),
    ("GET", "/v1.41/containers/json%2f..%2f..%2fimages%2fjson"),
    ("GET", "/v1.41/containers/json;/../../images/json"),
    ("GET", f"/v1.41/containers/{ID}/json/../logs"),
    ("GET", "/v1.41/containers/name-of-a-container/json"),
    ("GET", f"/v1.41/containers/{ID[1:]}/json"),
    ("GET", f"http://localhost/v1.41/containers/{ID}/logs"),
]


@dataclass(frozen=True)
class Proxy:
    port: int

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def status(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Return how it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with closing(connection):
            connection.request(method, path, body, headers or {})
            return connection.getresponse().status

    def listens(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


@pytest.fixture(scope="module")
def proxy(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    del engine
    if not os.environ.get("CI") and shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: Debian's haproxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        found = Proxy(free.getsockname()[1])
    log = tmp_path_factory.mktemp("proxy") / "haproxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Without -q and -db it says nothing of what is wrong, and leaves the terminal.
            ["haproxy", "-db", "-f", CONFIGURATION],
            env={**os.environ, "LISTEN": f"127.0.0.1:{found.port}", "DOCKER_SOCKET": SOCKET},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(found.listens, seconds=30, what=f"HAProxy, see {log}")
        yield found
    finally:
        end_group(process, signal.SIGTERM)


@pytest.fixture(scope="module")
def through(proxy: Proxy) -> DockerEngine:
    return DockerEngine(proxy.endpoint, concurrency=64, timeout_s=10)


@pytest.fixture(scope="module")
def sandboxes(engine: docker.DockerClient, account_id: UUID) -> Iterator[Sandboxes]:
    del engine
    started = Sandboxes(account_id)
    with listening(started):
        yield started


def test_haproxy_has_nothing_to_say_against_the_configuration() -> None:
    if not os.environ.get("CI") and shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: Debian's haproxy")
    done = subprocess.run(
        ["haproxy", "-c", "-dW", "-f", CONFIGURATION],
        env={**os.environ, "LISTEN": ":2375", "DOCKER_SOCKET": SOCKET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_what_the_collector_does_not_ask_is_refused(method: str, path: str, proxy: Proxy) -> None:
    assert proxy.status(method, path) == 403


def test_no_body_and_no_other_protocol_gets_through(proxy: Proxy) -> None:
    assert proxy.status("GET", "/version") == 200
    assert proxy.status("GET", "/version", b"{}") == 403
    assert proxy.status("GET", "/version", headers={"Transfer-Encoding": "chunked"}) == 403
    upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
    assert proxy.status("GET", "/v1.41/events", headers=upgrade) == 403


def test_the_compose_files_check_of_it_tells_whether_it_answers(proxy: Proxy) -> None:
    word, *command = SERVICES["docker-socket"]["healthcheck"]["test"]
    assert word == "CMD"
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    for port, is_well in ((proxy.port, True), (nobody, False)):
        asked = [part.replace("/2375;", f"/{port};") for part in command]
        done = subprocess.run(asked, capture_output=True, timeout=10, check=False)
        assert (done.returncode == 0) == is_well


def test_dockers_own_command_cannot_run_anything_through_it(proxy: Proxy) -> None:
    for command in (("run", "--rm", "busybox", "true"), ("exec", ID, "true"), ("logs", ID)):
        with pytest.raises(subprocess.CalledProcessError):
            run_docker(*command, endpoint=proxy.endpoint)


def test_each_question_of_the_collector_is_answered_as_by_the_socket(
    through: DockerEngine, sandboxes: Sandboxes
) -> None:
    direct = DockerEngine(ENDPOINT, concurrency=64, timeout_s=10)
    before = datetime.now(UTC) - timedelta(seconds=1)
    container = sandboxes.start("asked", IDLE)
    assert through.engine_id() == direct.engine_id()
    assert through.offer() == direct.offer()
    assert [found for found in through.list_containers() if found.container_id == container] == [
        found for found in direct.list_containers() if found.container_id == container
    ]
    assert through.inspect([container]) == direct.inspect([container])
    assert through.find_pids([container]) == direct.find_pids([container])
    [reading] = through.read([container])
    assert reading.container_id == container
    assert reading.memory_bytes
    assert container in {reading.container_id for reading in through.read_storage()}
    events = through.events_between(before, datetime.now(UTC)).seen
    assert Action.START in {event.action for event in events if event.container_id == container}


def test_of_a_container_that_is_gone_the_engine_itself_says_so(through: DockerEngine) -> None:
    assert through.inspect([ID]) == []


def test_events_are_heard_as_they_happen(through: DockerEngine, sandboxes: Sandboxes) -> None:
    stream = through.watch_events(since=datetime.now(UTC))
    try:
        container = sandboxes.start("heard", IDLE)
        heard = next(event for event in stream if event.container_id == container)
        assert heard.action in {Action.CREATE, Action.START}
    finally:
        stream.close()


def test_more_questions_at_once_than_the_default_are_answered(
    proxy: Proxy, sandboxes: Sandboxes
) -> None:
    container = sandboxes.start("crowd", IDLE)
    crowd = DockerEngine(proxy.endpoint, concurrency=600, timeout_s=60)
    assert len(crowd.inspect([container] * 600)) == 600


def test_a_sandbox_is_metered_through_it(
    proxy: Proxy, sandboxes: Sandboxes, settings: Settings
) -> None:
    settings.METERING_SOURCE = "engine"
    host_id = uuid4()
    now = datetime.now(UTC)
    register_host(
        host_id=host_id,
        name=f"proxied-{host_id}",
        endpoint=proxy.endpoint,
        now=now - timedelta(days=1),
    )
    container = sandboxes.start("metered", BUSY, "--cpus", "0.2")

    def used_ns() -> int:
        collect_host(host_id, now=datetime.now(UTC))
        aggregate_until_done(host_id)
        read = LifeReading.objects.filter(life__host_id=host_id, life__container_id=container)
        return sum(reading.cpu_ns - reading.base_cpu_ns for reading in read)

    wait_until(lambda: used_ns() > 0, seconds=60, what="cpu that was measured")
    collect_storage(host_id, now=datetime.now(UTC))
    assert Host.objects.get(pk=host_id).problem == ""
    sandboxes.docker("kill", container)

    def has_ended() -> bool:
        collect_host(host_id, now=datetime.now(UTC))
        lives = Life.objects.filter(host_id=host_id, container_id=container)
        return lives.filter(ended_at__isnull=False).exists()

    wait_until(has_ended, seconds=60, what="the end of the life")
