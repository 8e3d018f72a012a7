"""An invoice's conservation statement as JSON."""

from __future__ import annotations

from typing import Any

from billing.conservation import ConservationStatement


def conservation_json(statement: ConservationStatement) -> dict[str, Any]:
    """Return the statement, amounts and quantities as text; quantities in base units."""
    return {
        "number": statement.number,
        "currency": statement.currency,
        "holds": statement.holds,
        "has_evidence": statement.has_evidence,
        "evidence_is_sealed": statement.is_sealed,
        "meters": [
            {
                "meter": str(entry.meter),
                "between_counters": _text(entry.counters),
                "steps": str(entry.steps),
                "in_windows": _text(entry.measured),
                "rated": str(entry.rated),
                "in_parts": _text(entry.parts),
                "counters_explain_it": entry.is_explained,
                "holds": entry.holds,
            }
            for entry in statement.meters
        ],
        "equations": [
            {
                "name": equation.name,
                "figure": f"{equation.figure:f}",
                "should_be": f"{equation.should_be:f}",
                "holds": equation.holds,
            }
            for equation in statement.equations
        ],
    }


def _text(quantity: int | None) -> str | None:
    return None if quantity is None else str(quantity)
