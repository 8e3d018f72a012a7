from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.checks import Error, run_checks
from django.db import connections
from pytest_django.fixtures import Settings

from soulbox.checks import (
    PLATFORM_IS_NOT_ASKED,
    SECOND_FACTOR_IS_OFF,
    WEBHOOKS_ARE_REFUSED,
    platform_can_be_asked,
    postgresql_problems,
    redis_problems,
    staff_give_a_second_factor,
    webhooks_are_believed,
)
from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE
from soulbox.keeper import redis_program
from soulbox.services import ServicesError, refuse_unsafe_settings
from tests.soulbox.processes import PROJECT

BIN = Path(sys.executable).parent
SAFE_POSTGRESQL = {
    "server_version_num": "150000",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}
SAFE_REDIS = {"redis_version": "6.2.0", "aof_enabled": 1, "maxmemory_policy": "noeviction"}


def test_the_oldest_supported_servers_are_accepted() -> None:
    assert postgresql_problems(SAFE_POSTGRESQL, setting="DATABASE_URL") == []
    assert redis_problems(SAFE_REDIS, setting="REDIS_URL") == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"server_version_num": "140019"}, "PostgreSQL 14 is too old"),
        ({"fsync": "off"}, "fsync = off"),
        ({"full_page_writes": "off"}, "full_page_writes = off"),
        ({"synchronous_commit": "off"}, "synchronous_commit = off"),
    ],
)
def test_an_unsafe_postgresql_is_refused_by_the_settings_name(
    changed: Mapping[str, str], words: str
) -> None:
    (found,) = postgresql_problems({**SAFE_POSTGRESQL, **changed}, setting="DATABASE_URL")
    assert words in found.msg
    assert found.msg.startswith("DATABASE_URL: ")
    assert found.hint


@pytest.mark.parametrize("value", ["local", "remote_write", "remote_apply"])
def test_a_commit_that_waits_for_a_disk_or_more_is_accepted(value: str) -> None:
    values = {**SAFE_POSTGRESQL, "synchronous_commit": value}
    assert postgresql_problems(values, setting="DATABASE_URL") == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"redis_version": "6.0.16"}, "Redis 6.0.16 is too old"),
        ({"aof_enabled": 0}, "appendonly no"),
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy allkeys-lru"),
        ({"maxmemory_policy": "volatile-ttl"}, "maxmemory-policy volatile-ttl"),
    ],
)
def test_an_unsafe_redis_is_refused_by_the_settings_name(
    changed: Mapping[str, Any], words: str
) -> None:
    (found,) = redis_problems({**SAFE_REDIS, **changed}, setting="STREAM_REDIS_URL")
    assert words in found.msg
    assert found.msg.startswith("STREAM_REDIS_URL: ")
    assert found.hint


@pytest.mark.parametrize(
    ("debug", "hosts", "is_refused"),
    [
        (True, ["localhost", "127.0.0.1", "[::1]"], False),
        (True, ["billing.example.com"], True),
        (True, ["*"], True),
        (False, ["billing.example.com"], False),
    ],
)
def test_debug_is_refused_on_a_public_host(
    settings: Settings,
    debug: bool,  # noqa: FBT001 - a column of the table
    hosts: Sequence[str],
    is_refused: bool,  # noqa: FBT001 - the same
) -> None:
    settings.DEBUG, settings.ALLOWED_HOSTS = debug, hosts
    found = [message for message in run_checks(tags=["security"]) if message.id == "soulbox.E001"]
    assert bool(found) == is_refused


@pytest.mark.parametrize(
    ("hosts", "is_refused"),
    [(["localhost", "127.0.0.1"], False), (["billing.example.com"], True), (["*"], True)],
)
def test_webhooks_to_private_addresses_are_refused_on_a_public_host(
    settings: Settings,
    hosts: Sequence[str],
    is_refused: bool,  # noqa: FBT001 - pytest names it
) -> None:
    settings.ALLOWED_HOSTS = hosts
    for is_on in (False, True):
        settings.WEBHOOKS_ALLOW_PRIVATE = is_on
        found = [message for message in run_checks(tags=["security"]) if "E008" in str(message.id)]
        assert bool(found) == (is_on and is_refused)


@pytest.mark.django_db
def test_the_embedded_services_are_safe() -> None:
    assert refuse_unsafe_settings() == []


@pytest.mark.django_db
def test_a_role_that_commits_asynchronously_is_refused() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    with pytest.raises(ServicesError, match=r"DATABASE_URL: .* synchronous_commit = off"):
        refuse_unsafe_settings()


@pytest.mark.django_db
def test_checks_of_servers_ask_nothing_unless_a_database_is_named(
    settings: Settings,
) -> None:
    settings.REDIS_URL = NOBODY_THERE
    assert not [message for message in run_checks(tags=["database"]) if isinstance(message, Error)]


@pytest.fixture
def unsafe_redis() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="soulbox-") as folder:
        socket = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", ""]
        with subprocess.Popen(
            [str(redis_program()), *options], stdout=subprocess.DEVNULL
        ) as server:
            url = f"unix://{socket}"
            with redis.Redis.from_url(url) as client:
                while not _answers(client):
                    time.sleep(0.01)
                client.config_set("maxmemory-policy", "allkeys-lru")
            yield url
            server.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _environment(redis_url: str) -> dict[str, str]:
    embedded = settings.EMBEDDED
    assert embedded is not None
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "DATABASE_URL": embedded.database_url(APPLICATION_ROLE),
        "DATABASE_OWNER_URL": embedded.database_url(OWNER_ROLE),
        "REDIS_URL": redis_url,
        "SECRET_KEY": "not the embedded one",
    }


NOBODY_THERE = "unix:///nowhere/redis.sock"
PROGRAMS = {
    "web": ["gunicorn", "soulbox.wsgi", "--check-config", "--no-control-socket"],
    "worker": ["celery", "-A", "soulbox", "worker", "--pool", "solo"],
    "beat": ["celery", "-A", "soulbox", "beat", "--schedule", "SCHEDULE"],
    "run": ["python", "manage.py", "run"],
    "migrate": ["python", "manage.py", "migrate"],
}


@pytest.fixture
def command(program: str, tmp_path: Path) -> list[str]:
    name, *arguments = PROGRAMS[program]
    # A file of the test's own: beat removes one that it cannot read.
    schedule = str(tmp_path / "schedule")
    return [str(BIN / name), *(argument.replace("SCHEDULE", schedule) for argument in arguments)]


def _run(command: Sequence[str], *, redis_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=PROJECT,
        env=_environment(redis_url),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_refuses_to_start_on_an_unsafe_redis(
    unsafe_redis: str, command: Sequence[str]
) -> None:
    ended = _run(command, redis_url=unsafe_redis)
    output = ended.stdout + ended.stderr
    assert ended.returncode != 0, output
    assert "REDIS_URL: Redis runs with appendonly no" in output
    assert "REDIS_URL: Redis runs with maxmemory-policy allkeys-lru" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("program", ["run", "migrate"])
def test_a_server_that_does_not_answer_is_one_line_and_no_traceback(
    command: Sequence[str],
) -> None:
    ended = _run(command, redis_url=NOBODY_THERE)
    output = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "REDIS_URL: Redis does not answer" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("program", ["web"])
def test_web_goes_on_without_a_redis_that_may_come_back(command: Sequence[str]) -> None:
    ended = _run(command, redis_url=NOBODY_THERE)
    assert ended.returncode == 0
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    told = [(event["level"], event["message"]) for event in events]
    assert any(
        level == "warning" and message.startswith("REDIS_URL: Redis does not answer")
        for level, message in told
    )


@pytest.mark.parametrize("program", ["worker", "beat"])
def test_a_background_process_waits_for_a_redis_that_does_not_answer(
    command: Sequence[str],
) -> None:
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=_environment(NOBODY_THERE),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("REDIS_URL: Redis does not answer" in line for line in process.stdout)
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize(
    ("two_factor", "embedded", "debug", "warned"),
    [
        ("required", None, False, False),
        ("optional", None, False, True),
        ("off", None, False, True),
        ("off", "services of this machine", False, False),
        ("off", None, True, False),
    ],
)
def test_an_admin_behind_a_password_alone_is_warned_of_in_the_open(
    settings: Settings, two_factor: str, embedded: str | None, *, debug: bool, warned: bool
) -> None:
    settings.STAFF_TWO_FACTOR, settings.EMBEDDED = two_factor, embedded
    settings.DEBUG = debug
    found = [message.id for message in staff_give_a_second_factor(None)]
    assert found == ([SECOND_FACTOR_IS_OFF] if warned else [])


@pytest.mark.parametrize(
    ("url", "secret", "found"),
    [
        ("", "", []),
        ("https://platform.example.com/hook", "secret", []),
        ("https://platform.example.com/hook", "", [PLATFORM_IS_NOT_ASKED]),
        ("platform.example.com/hook", "secret", [PLATFORM_IS_NOT_ASKED]),
    ],
)
def test_a_platforms_hook_that_nothing_is_sent_to_is_warned_of(
    settings: Settings, url: str, secret: str, found: list[str]
) -> None:
    settings.PLATFORM_HOOK_URL, settings.PLATFORM_HOOK_SECRET = url, secret
    assert [message.id for message in platform_can_be_asked(None)] == found


@pytest.mark.parametrize(
    ("key", "secrets", "embedded", "warned"),
    [
        ("rk_live_1", [], None, True),
        ("rk_live_1", ["whsec_1"], None, False),
        ("", [], None, False),
        ("rk_live_1", [], object(), False),
    ],
)
def test_webhooks_that_would_be_refused_are_warned_of(
    settings: Settings, key: str, secrets: list[str], embedded: object, *, warned: bool
) -> None:
    settings.STRIPE_API_KEY, settings.STRIPE_WEBHOOK_SECRETS = key, secrets
    settings.EMBEDDED = embedded
    found = webhooks_are_believed(None)
    assert [message.id for message in found] == ([WEBHOOKS_ARE_REFUSED] if warned else [])
    assert all("STRIPE_WEBHOOK_SECRET" in str(message.hint) for message in found)


def test_a_public_installation_passes_the_checks_for_one() -> None:
    environment = {
        **_environment(settings.REDIS_URL),
        "SECRET_KEY": "".join(chr(48 + index) for index in range(60)),
        "ALLOWED_HOSTS": "billing.example.com",
        "PUBLIC_URL": "https://billing.example.com",
        "EMAIL_URL": "smtp://mail.example.com:587",
        "MAIL_FROM": "Billing <billing@example.com>",
        "STRIPE_API_KEY": "sk_live_none",
        "STRIPE_WEBHOOK_SECRET": "whsec_none",
        "PLATFORM_HOOK_URL": "https://platform.example.com/hook",
        "PLATFORM_HOOK_SECRET": "a secret of the platform",
        "BEHIND_PROXY": "yes",
    }
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    del environment["STRIPE_WEBHOOK_SECRET"]
    environment["HTTPS_ONLY"] = "no"
    refused = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert {"soulbox.W005", "security.W008", "security.W012"} <= set(
        re.findall(r"[a-z]+\.W\d+", refused.stderr)
    )
