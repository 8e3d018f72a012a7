"""Labels of a life: names and values by which an account tells what its usage was for."""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_LABELS = 16
LONGEST_VALUE = 128
LABEL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,63}")

NAME_RULE = "a name is 1 to 63 letters, digits, or _ . - /"
VALUE_RULE = f"a value is at most {LONGEST_VALUE} printable characters"
NUMBER_RULE = f"at most {MOST_LABELS} labels are kept"

_MOST_NAMED = 3
_LONGEST_SHOWN = 40


class LabelNameError(ValueError):
    """No label can have this name; the message says which ones can be."""


def find_fault(name: str, value: str) -> str | None:
    """Return the rule that a label breaks, None when it breaks none."""
    if not LABEL_NAME.fullmatch(name):
        return NAME_RULE
    # Not printable are control characters, NUL and half a surrogate pair among them: a database
    # does not take the last two, and an invoice none.
    if len(value) > LONGEST_VALUE or not value.isprintable():
        return VALUE_RULE
    return None


def keep_labels(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels that are kept and, by name, the rule that each of the others breaks.

    Of too many the first by name are kept, so that each start of a container keeps the same.
    """
    kept: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, value in sorted(given.items()):
        if fault := find_fault(name, value):
            left_out[name] = fault
        elif len(kept) == MOST_LABELS:
            left_out[name] = NUMBER_RULE
        else:
            kept[name] = value
    return kept, left_out


def explain_left_out(left_out: Mapping[str, str]) -> str:
    """Return which labels are left out and why, for people; of many the first, and how many."""
    named = [f"{_shown(name)!r}: {rule}" for name, rule in left_out.items()]
    more = len(named) - _MOST_NAMED
    return "; ".join(named[:_MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


def require_label_name(name: str) -> None:
    """Raise LabelNameError when no label can have this name."""
    if not LABEL_NAME.fullmatch(name):
        raise LabelNameError(f"label {_shown(name)!r}: {NAME_RULE}.")


def _shown(name: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in name[:_LONGEST_SHOWN])
