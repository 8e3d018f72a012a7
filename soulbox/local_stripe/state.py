"""Everything the server remembers, as plain JSON that a file can keep."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

Obj = dict[str, Any]

ID_CHARACTERS = string.ascii_letters + string.digits


@dataclass
class State:
    """Objects by kind and id, each kind in the order of creation, and what goes with them."""

    tables: dict[str, dict[str, Obj]] = field(default_factory=dict)
    # Lines by invoice: an invoice shows its first ten only.
    lines: dict[str, list[Obj]] = field(default_factory=dict)
    # What a test card does, by payment method: the name of its token.
    cards: dict[str, str] = field(default_factory=dict)
    # When a customer was last written, for a search that lags.
    written_at: dict[str, int] = field(default_factory=dict)
    # Answers by idempotency key.
    keys: dict[str, Obj] = field(default_factory=dict)
    # What is still owed to whom, by event: endpoints that have not acknowledged it.
    owed: dict[str, list[str]] = field(default_factory=dict)
    # Invoices that finalise and pay themselves, and when they are due.
    due: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Not for secrets: a seed makes a run's ids repeatable.
        self.random = random.Random()  # noqa: S311 - the same

    def table(self, kind: str) -> dict[str, Obj]:
        """Return all objects of a kind, oldest first."""
        return self.tables.setdefault(kind, {})

    def find(self, object_id: str) -> Obj | None:
        """Return the object with this id, of whatever kind."""
        for table in self.tables.values():
            if object_id in table:
                return table[object_id]
        return None

    def new_id(self, prefix: str, length: int = 24) -> str:
        """Return an id that looks as Stripe's do."""
        return f"{prefix}_{''.join(self.random.choices(ID_CHARACTERS, k=length))}"

    def save(self, path: Path) -> None:
        """Write everything to the file, whole or not at all."""
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(path)

    @classmethod
    def loaded(cls, path: Path) -> State:
        """Return what the file kept; nothing yet without a file."""
        kept = json.loads(path.read_text()) if path.exists() else {}
        return cls(**{one.name: kept[one.name] for one in fields(cls) if one.name in kept})
