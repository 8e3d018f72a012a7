"""What processes take, each with all its children, as Linux tells."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Its processes map the same buffers, and each counts them as its own.
SHARES_MEMORY = "postgresql"


@dataclass(frozen=True, slots=True)
class Taken:
    """Resident memory, and cpu since the process began, of children that have ended too."""

    rss_bytes: int
    cpu_s: float


def taken(roots: Mapping[str, int]) -> dict[str, Taken]:
    """Return what each tree of processes takes; one that has ended takes nothing."""
    children: dict[int, list[int]] = defaultdict(list)
    cpu_s: dict[int, float] = {}
    for pid, fields in _stats():
        children[int(fields[1])].append(pid)
        cpu_s[pid] = sum(map(int, fields[11:15])) / _TICKS_A_SECOND
    found = {}
    for name, root in roots.items():
        tree = [pid for pid in _tree(root, children) if pid in cpu_s]
        column = "RssAnon" if name == SHARES_MEMORY else "VmRSS"
        found[name] = Taken(
            sum(_status_bytes(pid, column) for pid in tree), sum(cpu_s[pid] for pid in tree)
        )
    return found


def _stats() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                # The second field is the program's name, which may hold spaces.
                yield (
                    int(folder.name),
                    (folder / "stat").read_text(errors="replace").rpartition(")")[2].split(),
                )


def _tree(root: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    yield root
    for child in children.get(root, ()):
        yield from _tree(child, children)


def _status_bytes(pid: int, column: str) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == column:
                return int(value.split()[0]) * 1024
    return 0
