from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from psycopg import sql

from soulbox.embedded import APPLICATION_ROLE, OWNER_ROLE
from tests.soulbox.processes import PROJECT

SOURCE, TARGET = "backups_source", "backups_target"
TIME_LIMIT_S = 60


def _url(role: str, database: str) -> str:
    embedded = settings.EMBEDDED
    assert embedded is not None
    return embedded.database_url(role).rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture
def databases() -> Iterator[None]:
    with psycopg.connect(_url(OWNER_ROLE, "postgres"), autocommit=True) as connection:
        for name in (SOURCE, TARGET):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield
        for name in (SOURCE, TARGET):
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def _manage(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    embedded = settings.EMBEDDED
    assert embedded is not None
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "soulbox.settings",
            "DATABASE_URL": _url(APPLICATION_ROLE, database),
            "DATABASE_OWNER_URL": _url(OWNER_ROLE, database),
            "REDIS_URL": embedded.redis_url(0),
            "SECRET_KEY": "not the embedded one",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT_S,
    )


def _privileges(database: str) -> list[tuple[object, ...]]:
    with psycopg.connect(_url(OWNER_ROLE, database)) as connection:
        return connection.execute(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
            " WHERE grantee = %s ORDER BY 1, 2",
            [APPLICATION_ROLE],
        ).fetchall()


def _rows(database: str, table: str) -> list[tuple[object, ...]]:
    with psycopg.connect(_url(OWNER_ROLE, database)) as connection:
        query = sql.SQL("SELECT * FROM {} ORDER BY 1").format(sql.Identifier(table))
        return connection.execute(query).fetchall()


@pytest.mark.usefixtures("databases")
def test_a_restored_database_has_the_same_rows_and_the_same_rights(tmp_path: Path) -> None:
    dump = tmp_path / "soulbox.dump"
    assert _manage(SOURCE, "migrate").returncode == 0
    assert _manage(SOURCE, "dump", str(dump)).returncode == 0
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    cut_off = tmp_path / "cut-off.dump"
    cut_off.write_bytes(dump.read_bytes()[: -(dump.stat().st_size // 10)])
    refused = _manage(TARGET, "restore", str(cut_off))
    assert "is not a whole dump" in refused.stderr
    assert _privileges(TARGET) == []
    restored = _manage(TARGET, "restore", str(dump))
    assert restored.returncode == 0, restored.stderr
    assert _manage(TARGET, "migrate", "--check").returncode == 0
    assert _privileges(SOURCE)
    assert _privileges(TARGET) == _privileges(SOURCE)
    assert _rows(SOURCE, "billing_price")
    assert _rows(TARGET, "billing_price") == _rows(SOURCE, "billing_price")
    # All or nothing: a database that already holds something is left as it is.
    again = _manage(TARGET, "restore", str(dump))
    assert again.returncode != 0
    assert "already exists" in again.stderr
    assert "Traceback" not in again.stderr
    assert _rows(TARGET, "billing_price") == _rows(SOURCE, "billing_price")


@pytest.mark.usefixtures("databases")
def test_a_file_that_is_no_dump_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a dump")
    refused = _manage(TARGET, "restore", str(file))
    assert refused.returncode != 0
    assert "is not a whole dump" in refused.stderr
    assert _privileges(TARGET) == []
