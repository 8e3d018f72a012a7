from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soulbox.embedded import Embedded

# Only what we made: a home may lie in a folder with other things, such as another home.
OURS = (
    "postgresql",
    "postgresql.unfinished",
    "redis",
    "log",
    "sockets",
    "secret-key",
    "demo-logins.json",
    "demo-logins.unfinished",
    "users.lock",
    "keeper.lock",
    "ready.lock",
)
OURS_BY_PATTERN = ("beat-schedule*",)


class InUseError(Exception):
    """The embedded services are in use; the message names the processes."""


def remove_home(embedded: Embedded) -> list[Path]:
    """Remove the embedded services' data and return what was removed. Safe to repeat.

    Raises InUseError.
    """
    if not embedded.home.exists():
        return []
    with _alone(embedded):
        found = [embedded.home / name for name in OURS if (embedded.home / name).exists()]
        found += [path for pattern in OURS_BY_PATTERN for path in embedded.home.glob(pattern)]
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not any(embedded.home.iterdir()):
            embedded.home.rmdir()
    return found


@contextmanager
def _alone(embedded: Embedded) -> Iterator[None]:
    with embedded.users_lock.open("a") as users, embedded.keeper_lock.open("a") as keeper:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(_in_use(embedded)) from None
        # The last user may have gone just now; its servers take a moment to stop.
        fcntl.flock(keeper, fcntl.LOCK_EX)
        yield


def _in_use(embedded: Embedded) -> str:
    used_by = "\n".join(f"  {pid}  {_command(pid)}" for pid in _users(embedded.users_lock))
    return f"{embedded.home} is in use; stop these processes first:\n{used_by}"


def _users(lock: Path) -> list[int]:
    """Return the processes that took the lock, from the kernel's own list."""
    inode = str(lock.stat().st_ino)
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(
        int(pid)
        for _, kind, _, mode, pid, file, *_ in fields
        # Ours is the only shared lock on it: the exclusive ones are the keeper's looks.
        if (kind, mode) == ("FLOCK", "READ")
        and file.split(":")[-1] == inode
        and int(pid) != os.getpid()
    )


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return "(its children)"
    return b" ".join(words).decode(errors="replace").strip()
