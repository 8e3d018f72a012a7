from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from honcho.environ import parse_procfile  # type: ignore[import-untyped]

from soulbox.celery import app
from soulbox.environment import VARIABLES
from soulbox.run import LOCAL_STRIPE
from tests.soulbox.processes import PROJECT

COMPOSE = (PROJECT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
PROCFILE: dict[str, str] = parse_procfile((PROJECT / "Procfile").read_text()).processes
# The compose file's own, for the servers that it brings along.
COMPOSE_VARIABLES = {
    "DATABASE_APP_PASSWORD",
    "DATABASE_OWNER_PASSWORD",
    "DOCKER_GROUP_ID",
    "FLOWER_BASIC_AUTH",
    "POSTGRES_PASSWORD",
    "REDIS_MAXMEMORY",
    "REDIS_PASSWORD",
}


def _queues(command: str) -> set[str]:
    return set(command.split("--queues ")[1].split(maxsplit=1)[0].split(","))


def test_compose_runs_every_process_of_the_procfile() -> None:
    # A local Stripe takes test cards only.
    assert set(PROCFILE) - {LOCAL_STRIPE} <= set(SERVICES)


def test_both_ways_to_run_serve_the_same_queues() -> None:
    in_compose = " ".join(SERVICES["worker"]["command"])
    assert _queues(PROCFILE["worker"]) == _queues(in_compose)


def test_every_entry_of_the_schedule_goes_to_a_queue_that_is_served() -> None:
    queues = {entry["options"]["queue"] for entry in app.conf.beat_schedule.values()}
    assert queues <= _queues(PROCFILE["worker"])


def test_compose_takes_only_variables_that_are_explained() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE))
    assert used <= set(VARIABLES) | COMPOSE_VARIABLES
    operations = (PROJECT / "docs" / "operations.md").read_text()
    assert [name for name in COMPOSE_VARIABLES if f"`{name}`" not in operations] == []


def test_compose_has_no_secret_of_its_own() -> None:
    for name in re.findall(r"\$\{([A-Z_]*(?:PASSWORD|SECRET|AUTH)[A-Z_]*)(?!:\?)\}", COMPOSE):
        # Written $${NAME} for the script in the container, which compose leaves alone.
        assert f"$${{{name}}}" in COMPOSE


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "migrate"])
def test_every_lasting_service_comes_back_and_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"]


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}
