"""Kill points: a worker that comes to the one that is next says who it is, and stands still.

The environment's FAULT names a file, and the file the point. One worker takes it; it is the test
that kills, from outside. Where FAULT names nothing a point is passed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.processes import wait_until

STANDS = "stands"
GOES_ON = "goes on"
ANOTHERS = "another worker has the cursor"
STANDS_FOR_S = 300
REACHED_WITHIN_S = 120
LOOK_EVERY_S = 0.01


def reach(point: str) -> None:
    """Stand still here until killed, or go on, if this is the point that is next."""
    path = Path(os.environ["FAULT"])
    try:
        armed, how = path.read_text().split("\n")
        if armed != point:
            return
        # Two workers may be here; one of them finds the file.
        path.rename(path.with_name(f"reached-{os.getpid()}"))
    except FileNotFoundError:
        return
    if how == STANDS:
        time.sleep(STANDS_FOR_S)
        raise TimeoutError(f"nobody killed this process at {point!r}")


def note(what: str) -> None:
    """Leave a line for the test."""
    with Path(os.environ["FAULT"]).with_name("notes").open("a") as notes:
        notes.write(f"{what}\n")


class Fault:
    """The point that is next, as the test sets it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "fault"

    def arm(self, point: str, how: str) -> None:
        """Let the next worker that comes to the point stand still, or go on after it is known."""
        draft = self.path.with_name("draft")
        draft.write_text(f"{point}\n{how}")
        draft.rename(self.path)

    def reached_by(self) -> int:
        """Wait for a worker to come to the point; return its process id."""
        found: list[Path] = []

        def is_reached() -> bool:
            found.extend(self.path.parent.glob("reached-*"))
            return bool(found)

        wait_until(
            is_reached,
            seconds=REACHED_WITHIN_S,
            what=f"a worker to come to the point in {self.path}",
            every_s=LOOK_EVERY_S,
        )
        found[0].unlink()
        return int(found[0].name.partition("-")[2])

    def notes(self) -> list[str]:
        """Return what the workers noted."""
        path = self.path.with_name("notes")
        return path.read_text().splitlines() if path.exists() else []
