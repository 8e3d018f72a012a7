"""The figures of each part: as a table, and as the file that keeps them all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure, in a unit."""

    name: str
    value: float
    unit: str


@dataclass
class Part:
    """What one part measured. `skipped` says why it measured nothing."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    skipped: str = ""

    def add(self, name: str, value: float, unit: str) -> None:
        """Keep a figure."""
        self.figures.append(Figure(name, value, unit))


def show(part: Part) -> None:
    """Print a part's table."""
    print(f"\n{part.name}{f': skipped, {part.skipped}' if part.skipped else ''}")
    for figure in part.figures:
        print(f"  {figure.name:<60} {figure.value:>14,.3f} {figure.unit}")
    for name, ratio in part.ratios.items():
        print(f"  {name:<60} {ratio:>14,.3f} ×", flush=True)


def save(parts: Iterable[Part], results: Path, *, is_quick: bool) -> None:
    """Write every figure, and every comparison under `ratios`."""
    results.parent.mkdir(exist_ok=True)
    found = {
        "is_quick": is_quick,
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "parts": {
            part.name: {
                "skipped": part.skipped,
                "figures": {f.name: {"value": f.value, "unit": f.unit} for f in part.figures},
            }
            for part in parts
        },
        "ratios": {
            f"{part.name}: {name}": ratio for part in parts for name, ratio in part.ratios.items()
        },
    }
    results.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
