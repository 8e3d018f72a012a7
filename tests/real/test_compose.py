"""The compose file before a real engine, which has more against a service than a schema has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import docker
import pytest
import yaml

from tests.deployment.test_compose import COMPOSE, REQUIRED, SERVICES
from tests.real.conftest import IMAGE, run_docker
from tests.soulbox.processes import PROJECT

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def made(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Have each service's container made, of an image that is here; yield what each became."""
    del engine
    if not os.environ.get("CI") and shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: Debian's docker-compose")
    folder = tmp_path_factory.mktemp("compose")
    project = f"soulbox-test-{uuid4()}"
    said = yaml.safe_load(COMPOSE)
    for service in said["services"].values():
        service["image"] = IMAGE
        # It would wait for health that what never starts does not have.
        service.pop("depends_on", None)
        service.pop("build", None)
    (folder / "made.yml").write_text(yaml.safe_dump(said))
    given = dict.fromkeys(REQUIRED, "given") | {"DOCKER_GROUP_ID": "999"}
    (folder / "env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))

    def compose(*arguments: str) -> None:
        where = ("--project-name", project, "--project-directory", PROJECT)
        done = subprocess.run(
            [
                *("docker-compose", "--env-file", folder / "env", "--file", folder / "made.yml"),
                *where,
                *arguments,
            ],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    try:
        compose("up", "--no-start")
        found = run_docker("ps", "--all", "--quiet", f"--filter=name={project}").split()
        containers = json.loads(run_docker("inspect", *found))
        label = "com.docker.compose.service"
        yield {it["Config"]["Labels"][label]: it for it in containers}
    finally:
        compose("down", "--volumes")


def test_the_engine_takes_every_service(made: dict[str, Any]) -> None:
    assert set(made) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_held_in_bounds(name: str, made: dict[str, Any]) -> None:
    host = made[name]["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    sockets = [bind for bind in host["Binds"] or [] if "docker.sock:" in bind]
    assert bool(sockets) == (name == "docker-socket")


@pytest.mark.parametrize("name", ["docker-socket", "postgres", "redis", "cache", "prometheus"])
def test_there_is_no_way_out_from_what_needs_none(name: str, made: dict[str, Any]) -> None:
    [network] = made[name]["NetworkSettings"]["Networks"]
    [told] = json.loads(run_docker("network", "inspect", network))
    assert told["Internal"]
