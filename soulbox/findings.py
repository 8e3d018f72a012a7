"""What `manage.py doctor` finds: one thing looked at, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `is_note`: it works, and somebody should know or decide."""

    is_good: bool
    text: str
    is_note: bool = False

    @property
    def level(self) -> str:
        """How it is shown: ok, note or WRONG."""
        if not self.is_good:
            return "WRONG"
        return "note" if self.is_note else "ok"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"level": self.level.lower(), "text": self.text}


def good(text: str) -> Finding:
    """Return what works."""
    return Finding(is_good=True, text=text)


def note(text: str) -> Finding:
    """Return what works, and somebody should know or decide."""
    return Finding(is_good=True, text=text, is_note=True)


def wrong(text: str) -> Finding:
    """Return what has to be mended."""
    return Finding(is_good=False, text=text)
