"""The compose file: what Debian's docker-compose makes of it, and whether it is the code's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from honcho.environ import parse_procfile

from soulbox.celery import QUEUES, app
from soulbox.environment import VARIABLES
from soulbox.run import LOCAL_STRIPE
from tests.soulbox.processes import PROJECT

COMPOSE = (PROJECT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
PROCFILE: dict[str, str] = parse_procfile((PROJECT / "Procfile").read_text()).processes
OURS = {name for name, service in SERVICES.items() if service["image"] == "soulbox-billing"}
WORKERS = {name for name in SERVICES if name.startswith("worker-")}
# Without one of these it does not start.
REQUIRED = sorted(set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE)))
# The compose file's own, for the servers that it brings along.
COMPOSE_VARIABLES = {
    "CACHE_PASSWORD",
    "DATABASE_APP_PASSWORD",
    "DATABASE_OWNER_PASSWORD",
    "DOCKER_GROUP_ID",
    "FLOWER_BASIC_AUTH",
    "GRAFANA_PASSWORD",
    "GRAFANA_PORT",
    "METRICS_TOKEN",
    "POSTGRES_PASSWORD",
    "REDIS_MAXMEMORY",
    "REDIS_MEMORY_LIMIT",
    "REDIS_PASSWORD",
}
# Of `make run`, or of no use in a container.
NOT_IN_A_CONTAINER = {
    "DEBUG",
    "DOCKER_HOST",
    "FLOWER_PORT",
    "SOULBOX_HOME",
    "STRIPE_PORT",
    "WEB_PORT",
}
FOR_WEB_ALONE = {"METRICS_TOKEN"}


def _queues(command: str) -> set[str]:
    return set(command.split("--queues ")[1].split(maxsplit=1)[0].split(","))


def _config(folder: Path, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Have docker-compose read the file with these variables and no others."""
    if not os.environ.get("CI") and shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: Debian's docker-compose")
    variables = folder / "env"
    variables.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    return subprocess.run(
        ["docker-compose", "--env-file", variables, "config"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    given = {name: f"given-{number}" for number, name in enumerate(REQUIRED)}
    done = _config(tmp_path, given | {"SELLER_NAME": "Example Ltd"})
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == set(SERVICES)
    # What .env says of a setting gets there; what it does not say is left to the code.
    web = services["web"]["environment"]
    assert web["SELLER_NAME"] == "Example Ltd"
    assert web["SIGN_UP"] is None
    assert web["SECRET_KEY"] == given["SECRET_KEY"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_secret_stops_it_with_its_name(name: str, tmp_path: Path) -> None:
    done = _config(tmp_path, {other: "given" for other in REQUIRED if other != name})
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(f"{name} is missing")


def test_an_empty_secret_is_a_missing_one(tmp_path: Path) -> None:
    name = "METRICS_TOKEN"
    done = _config(tmp_path, dict.fromkeys(REQUIRED, "given") | {name: ""})
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(f"{name} is missing")


def test_every_secret_is_required() -> None:
    secrets = {name for name in COMPOSE_VARIABLES if re.search("PASSWORD|TOKEN|AUTH", name)}
    assert secrets | {"SECRET_KEY", "METERING_HOST_ID", "DOCKER_GROUP_ID"} == set(REQUIRED)


def test_compose_has_no_secret_of_its_own() -> None:
    said = re.findall(
        r"^ *(?:- )?([A-Z_]*(?:PASSWORD|SECRET|AUTH|TOKEN)[A-Z_]*): *(.*)$", COMPOSE, re.MULTILINE
    )
    assert said
    for name, value in said:
        if name != "GF_AUTH_ANONYMOUS_ENABLED":
            assert re.fullmatch(r"|\$\{\w+:\?\w+ is missing\}", value), name


def test_compose_runs_every_process_of_the_procfile() -> None:
    # A local Stripe takes test cards only; each queue has a worker of its own.
    assert set(PROCFILE) - {LOCAL_STRIPE, "worker"} <= set(SERVICES)
    assert WORKERS


def test_both_ways_to_run_serve_the_same_queues() -> None:
    served = [_queues(" ".join(SERVICES[name]["command"])) for name in WORKERS]
    assert sorted(queue for queues in served for queue in queues) == sorted(QUEUES)
    assert _queues(PROCFILE["worker"]) == set(QUEUES)


@pytest.mark.parametrize("name", sorted(WORKERS | {"collector"}))
def test_the_check_of_a_worker_asks_that_worker(name: str) -> None:
    service = SERVICES[name]
    node = service["command"][service["command"].index("--hostname") + 1].removesuffix("@%h")
    assert f"--destination {node}@$$HOSTNAME" in service["healthcheck"]["test"][1]


def test_every_entry_of_the_schedule_goes_to_a_queue_that_is_served() -> None:
    queues = {entry["options"]["queue"] for entry in app.conf.beat_schedule.values()}
    assert queues <= _queues(PROCFILE["worker"])


def test_compose_takes_only_variables_that_are_explained() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE))
    assert used <= set(VARIABLES) | COMPOSE_VARIABLES
    assert used >= COMPOSE_VARIABLES
    page = (PROJECT / "docs" / "deployment.md").read_text()
    assert [name for name in COMPOSE_VARIABLES if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_processes_get_every_setting_and_no_other(name: str) -> None:
    given = set(SERVICES[name]["environment"])
    settings_of_it = set(VARIABLES) - NOT_IN_A_CONTAINER
    assert settings_of_it - given <= FOR_WEB_ALONE - ({"METRICS_TOKEN"} if name == "web" else set())
    assert given - settings_of_it <= {"FLOWER_BASIC_AUTH", "METRICS_TOKEN"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "migrate"])
def test_every_lasting_service_comes_back_and_says_how_it_is(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_held_in_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpu_shares"]
    assert service["pids_limit"]
    # What PostgreSQL's image needs to become PostgreSQL's own user.
    assert ("cap_add" in service) == (name == "postgres")
    assert "privileged" not in service
    assert ":" in service["image"] or name in OURS


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_process_has_longer_to_stop_than_a_task_may_take(name: str) -> None:
    grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.CELERY_TASK_TIME_LIMIT


def test_what_must_not_be_lost_and_what_may_are_two_redis() -> None:
    redis, cache = SERVICES["redis"]["command"], SERVICES["cache"]["command"]
    assert redis[redis.index("--maxmemory-policy") + 1] == "noeviction"
    assert redis[redis.index("--appendonly") + 1] == "yes"
    assert cache[cache.index("--maxmemory-policy") + 1] == "allkeys-lru"
    environment = SERVICES["web"]["environment"]
    assert "@redis/" in environment["REDIS_URL"]
    assert "@redis/" in environment["STREAM_REDIS_URL"]
    assert "@cache/" in environment["CACHE_REDIS_URL"]


def test_the_engines_socket_is_one_services_and_the_collectors_alone() -> None:
    with_socket = [
        name for name, it in SERVICES.items() if "docker.sock" in str(it.get("volumes", []))
    ]
    assert with_socket == ["docker-socket"]
    assert SERVICES["docker-socket"]["networks"] == ["engine"]
    assert [name for name, it in SERVICES.items() if "engine" in it["networks"]] == [
        "docker-socket",
        "collector",
    ]


def test_networks_without_a_way_out_hold_what_needs_none() -> None:
    networks = yaml.safe_load(COMPOSE)["networks"]
    assert [name for name, it in networks.items() if not it] == ["outside"]
    for name in ("postgres", "redis", "cache", "beat", "docker-socket", "prometheus"):
        assert "outside" not in SERVICES[name]["networks"]


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_grafana_lets_nobody_in_without_a_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_prometheus_finds_the_token_where_it_is_put() -> None:
    text = (PROJECT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    [job] = [it for it in yaml.safe_load(text)["scrape_configs"] if it["job_name"] == "soulbox"]
    [_shell, _option, script] = SERVICES["prometheus"]["entrypoint"]
    assert f"> {job['authorization']['credentials_file']} &&" in script
    assert script.startswith("umask 077 ")
    assert job["static_configs"] == [{"targets": ["web:8000"]}]


def test_what_is_mounted_is_there() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert mounted
    assert [path for path in mounted if not (PROJECT / path).exists()] == []


def test_grafana_looks_for_its_dashboards_where_they_are_mounted() -> None:
    provider = PROJECT / "deploy" / "grafana" / "provisioning" / "dashboards" / "soulbox.yml"
    [one] = yaml.safe_load(provider.read_text())["providers"]
    volumes = SERVICES["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{one['options']['path']}:ro" in volumes


def test_what_the_page_says_to_run_makes_all_that_is_required(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "deployment.md").read_text()
    [script] = re.findall(r"```sh\n(umask.*?)```", page, re.DOTALL)
    # Where no engine is, its socket has no group.
    script = script.replace("/var/run/docker.sock", "/dev/null")
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True)
    made = tmp_path / ".env"
    assert made.stat().st_mode & 0o077 == 0
    given = dict(line.split("=", 1) for line in made.read_text().splitlines())
    assert set(given) == set(REQUIRED)
    assert len(set(given.values())) == len(given)
    done = _config(tmp_path, given)
    assert done.returncode == 0, done.stderr
