"""A real PostgreSQL and a real Redis from wheels, for a machine that has neither.

Each process that needs them calls `start` and then holds a shared lock for as long as it
lives. One keeper process (keeper.py) runs the two servers and watches that lock: when the last
holder is gone, however it ended, the keeper stops them and ends too. Nothing is left behind
after Ctrl-C, `kill` or `kill -9`.

Three files in the home folder are locks. The kernel frees them with their holders, so no crash
leaves one behind:

    users.lock    shared by every process that called `start`
    keeper.lock   the keeper's and its servers'; free only when none of them is left
    ready.lock    the keeper's while both servers answer
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

DATABASE = "soulbox"
OWNER_ROLE = "soulbox_owner"
APPLICATION_ROLE = "soulbox_app"

START_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.02
# Linux allows 108 bytes for the path of a Unix socket; PostgreSQL's name takes 15 of them.
LONGEST_SOCKET_FOLDER_BYTES = 80
# Others mean something in a URL or in a list of hosts, and each client reads them its own way.
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")


class EmbeddedServiceError(Exception):
    """A bundled server did not start; the message says why and where its log is."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where the bundled servers of one folder keep their data and can be reached."""

    home: Path

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets: below home, unless that path is too long or odd."""
        inside = self.home / "sockets"
        is_short = len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER_BYTES
        if is_short and PLAIN_PATH.fullmatch(str(inside)):
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        # Not $TMPDIR: processes with another one have to find the same sockets.
        # make_private refuses a folder that somebody else has made under this name.
        return Path("/tmp") / f"soulbox-{os.geteuid()}-{digest}"  # noqa: S108 - see above

    @property
    def log(self) -> Path:
        """The folder of the keeper's and the servers' logs."""
        return self.home / "log"

    @property
    def users_lock(self) -> Path:
        """Held, shared, by every process that uses the servers."""
        return self.home / "users.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper and its servers."""
        return self.home / "keeper.lock"

    @property
    def ready_lock(self) -> Path:
        """Held by the keeper while both servers answer."""
        return self.home / "ready.lock"

    def database_url(self, role: str) -> str:
        """Return the database's URL for one of the two roles."""
        return f"postgres://{role}@{quote(str(self.sockets), safe='')}/{DATABASE}"

    def redis_url(self, database: int) -> str:
        """Return the URL of one of Redis' numbered databases."""
        return f"unix://{self.sockets}/redis.sock?db={database}"


# What this process holds, kept until it ends; children of a fork share it.
_held: dict[Path, int] = {}


def start(embedded: Embedded) -> None:
    """Return when both servers answer; they stop after the last process that called this.

    Safe to repeat; a repeated call brings the servers back should they have been killed.
    Raises EmbeddedServiceError when they do not come up in time.
    """
    home = embedded.home
    make_private(home)
    if home not in _held:
        _held[home] = _join_users(embedded)
    deadline = time.monotonic() + START_TIMEOUT_S
    keeper: subprocess.Popen[bytes] | None = None
    while not is_locked(embedded.ready_lock):
        # A keeper that ended with 0 had met another one, which may be gone by now.
        if (keeper is None or keeper.poll() == 0) and not is_locked(embedded.keeper_lock):
            keeper = _spawn_keeper(embedded)
        failed = keeper is not None and keeper.poll() not in {None, 0}
        if failed or time.monotonic() > deadline:
            os.close(_held.pop(home))
            raise EmbeddedServiceError(
                f"The embedded services did not start: {_last_line(embedded.log / 'keeper.log')} "
                f"The logs are in {embedded.log}."
            )
        time.sleep(POLL_INTERVAL_S)
    if keeper:
        # It outlives this process by design, so Python is not to warn that it still runs.
        keeper.returncode = 0


def make_private(folder: Path) -> None:
    """Make the folder for its owner alone. Raises EmbeddedServiceError if it is another's.

    Safe to repeat.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EmbeddedServiceError(
            f"{folder} belongs to another user; set SOULBOX_HOME to a folder of your own."
        )
    if found.st_mode & 0o077:
        # PostgreSQL trusts whoever reaches its socket, so nobody else may.
        folder.chmod(0o700)


def is_locked(path: Path) -> bool:
    """Return whether some process holds the exclusive lock on this file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _join_users(embedded: Embedded) -> int:
    while True:
        users = os.open(embedded.users_lock, os.O_WRONLY | os.O_CREAT, 0o600)
        # Waits here while a keeper that has seen its last user go is still stopping its servers.
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            if os.path.samestat(os.fstat(users), embedded.users_lock.stat()):
                return users
        except FileNotFoundError:
            make_private(embedded.home)
        # `reset` removed the file while we waited for it; the lock of a removed file is nobody's.
        os.close(users)


def _spawn_keeper(embedded: Embedded) -> subprocess.Popen[bytes]:
    make_private(embedded.log)
    with (embedded.log / "keeper.log").open("wb") as log:
        # A session of its own, so that Ctrl-C in the terminal does not stop it before its users.
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "soulbox.keeper", str(embedded.home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent,
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "No reason was given.")
