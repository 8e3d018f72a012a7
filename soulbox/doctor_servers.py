"""What the doctor looks at in PostgreSQL, in each Redis and at the broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connections
from kombu.exceptions import OperationalError

from soulbox.celery import QUEUES, app
from soulbox.checks import REDIS_TIMEOUT_S, postgresql_problems
from soulbox.findings import Finding, good, note, wrong

MOST_SKEW_S = 5
"""A server's clock may be so far from this machine's."""
MOST_CONNECTIONS_USED = 0.9
MOST_MEMORY_USED = 0.9
MANY_WAIT = 1_000
"""So many messages in a queue that waits for a worker are worth a note."""

_SERVER = """
    SELECT current_setting('server_version'), current_user,
        rolsuper OR rolcreaterole OR rolcreatedb,
        pg_is_in_recovery(), current_setting('server_encoding'), current_setting('autovacuum'),
        clock_timestamp(), current_setting('max_connections')::int,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        (SELECT system_identifier FROM pg_control_system()), current_database(),
        (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relowner = pg_roles.oid
            AND relnamespace = 'public'::regnamespace)
    FROM pg_roles WHERE rolname = current_user
"""
_NAMES = (
    "version",
    "role",
    "is_mighty",
    "is_standby",
    "encoding",
    "autovacuum",
    "clock",
    "connections",
    "used",
    "system",
    "database",
    "owned",
)


def postgresql() -> Iterator[Finding]:
    """Look at the server, and at both roles."""
    try:
        used, owned = _read("default"), _read("owner")
    except Error as error:
        yield wrong(f"PostgreSQL cannot be looked at: {' '.join(str(error).split())}")
        return
    yield good(f"PostgreSQL {used['version']}, database {used['database']}")
    yield from postgresql_findings(used, owned, now=datetime.now(UTC))
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings")
        problems = postgresql_problems(dict(cursor.fetchall()), setting="DATABASE_OWNER_URL")
    yield from (wrong(f"{problem.msg} {problem.hint}") for problem in problems)


def postgresql_findings(
    used: Mapping[str, Any], owned: Mapping[str, Any], *, now: datetime
) -> Iterator[Finding]:
    """Yield what there is to say of a server by what each role reads of it."""
    here, there = (used["system"], used["database"]), (owned["system"], owned["database"])
    if here != there:
        yield wrong(
            "DATABASE_URL and DATABASE_OWNER_URL are different databases: name the same one"
        )
    if used["is_standby"]:
        yield wrong("DATABASE_URL is a standby, which takes no writes: name the primary")
    if used["is_mighty"]:
        yield wrong(
            f"The role {used['role']} may make roles or databases, or is a superuser: "
            f"ALTER ROLE {used['role']} NOSUPERUSER NOCREATEROLE NOCREATEDB"
        )
    elif used["owned"]:
        yield wrong(
            f"The role {used['role']} owns {used['owned']} tables, so it could change what is "
            "final: let DATABASE_OWNER_URL name another role, and migrate as it"
        )
    else:
        yield good(f"{used['role']} uses the tables, {owned['role']} owns them")
    if used["encoding"] != "UTF8":
        yield wrong(f"The database is in {used['encoding']}: make it anew with ENCODING 'UTF8'")
    if used["autovacuum"] != "on":
        yield wrong("autovacuum is off, so tables grow without end: set autovacuum = on")
    yield from _clock("PostgreSQL", used["clock"], now)
    share = used["used"] / used["connections"]
    text = f"{used['used']} of {used['connections']} connections to PostgreSQL are used"
    if share > MOST_CONNECTIONS_USED:
        yield wrong(f"{text}: raise max_connections, or put a pooler between")
    else:
        yield good(text)


def redis_servers() -> Iterator[Finding]:
    """Look at the Redis of each URL."""
    for setting in ("REDIS_URL", "STREAM_REDIS_URL", "CACHE_REDIS_URL"):
        try:
            with redis.Redis.from_url(
                getattr(settings, setting),
                socket_timeout=REDIS_TIMEOUT_S,
                socket_connect_timeout=REDIS_TIMEOUT_S,
            ) as client:
                info: dict[str, Any] = client.info()
                seconds, micro = client.time()
        except redis.RedisError as error:
            yield wrong(f"{setting}: Redis does not answer: {error}")
            continue
        clock = datetime.fromtimestamp(seconds + micro / 10**6, UTC)
        yield from redis_findings(setting, info, is_cache=setting == "CACHE_REDIS_URL")
        yield from _clock(setting, clock, datetime.now(UTC))


def redis_findings(setting: str, info: Mapping[str, Any], *, is_cache: bool) -> Iterator[Finding]:
    """Yield what there is to say of a server whose INFO this is. Whether it is safe is a check."""
    policy, most = info["maxmemory_policy"], info["maxmemory"]
    file = "append-only" if info["aof_enabled"] else "no append-only file"
    yield good(f"{setting}: Redis {info['redis_version']}, {policy}, {file}")
    if info["role"] != "master":
        yield wrong(f"{setting}: a replica, which takes no writes: name the primary")
    if info["aof_enabled"] and info.get("aof_last_write_status") != "ok":
        yield wrong(f"{setting}: the append-only file is not written: look at its disk")
    if most and info["used_memory"] > MOST_MEMORY_USED * most and policy == "noeviction":
        yield wrong(f"{setting}: {info['used_memory'] / most:.0%} of maxmemory is used: raise it")
    if not most:
        yield note(f"{setting}: maxmemory is not set, so it may take all of the machine's memory")
    if is_cache and most and policy == "noeviction":
        yield note(f"{setting}: a cache that never evicts fills up: maxmemory-policy allkeys-lru")


def broker() -> Iterator[Finding]:
    """Look at whether messages are taken, and how many wait for a worker."""
    try:
        with app.connection_for_write(connect_timeout=REDIS_TIMEOUT_S) as connection:
            connection.ensure_connection(max_retries=1, timeout=REDIS_TIMEOUT_S)
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=REDIS_TIMEOUT_S) as client:
            lengths = {queue: int(client.llen(queue)) for queue in QUEUES}
    except (OperationalError, redis.RedisError) as error:
        yield wrong(f"The broker takes no message: {error}")
        return
    told = ", ".join(f"{count} {queue}" for queue, count in lengths.items())
    text = f"messages that wait: {told}"
    yield note(f"{text}; look at the workers") if max(lengths.values()) > MANY_WAIT else good(text)


def _read(alias: str) -> dict[str, Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(_SERVER)
        return dict(zip(_NAMES, cursor.fetchone(), strict=True))


def _clock(whose: str, clock: datetime, now: datetime) -> Iterator[Finding]:
    skew_s = (clock - now).total_seconds()
    if abs(skew_s) > MOST_SKEW_S:
        yield wrong(f"{whose}: its clock is {skew_s:+.1f} s from this machine's: run NTP on both")
