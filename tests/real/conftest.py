from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import docker
import pytest
from pytest_django.plugin import DjangoDbBlocker

from billing.services import open_account
from metering.services import register_host
from tests.conftest import wipe_committed_rows
from tests.processes import running

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


@pytest.fixture(scope="module")
def workers(
    host_id: UUID, service_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A real Celery worker and a real beat, as `make run` starts them."""
    folder = tmp_path_factory.mktemp("workers")
    celery = ("-m", "celery", "-A", "soulbox")
    queues = f"collect.{host_id},aggregate,default"
    worker = (*celery, "worker", "-Q", queues, "-c", "2", "-n", f"test-{host_id}@%h")
    beat = (*celery, "beat", "-s", str(folder / "schedule"))
    with (
        running(*worker, env=service_environment, log=folder / "worker.log"),
        running(*beat, env=service_environment, log=folder / "beat.log"),
    ):
        yield folder


def run_docker(*arguments: str) -> str:
    """Run the docker command as a person would; return what it printed."""
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()
