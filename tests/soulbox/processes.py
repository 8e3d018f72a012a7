"""Real processes of one test: started here, ended here, by their own ids."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def descendants(pid: int) -> list[int]:
    """Return every process below this one, at this moment. One that ends meanwhile has none."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def wait_for_end(pid: int) -> None:
    """Return when the process has ended; at once when it has already."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([process], [], [])
    os.close(process)
