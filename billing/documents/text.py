"""Text from outside, made fit to be shown."""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "\N{REPLACEMENT CHARACTER}"
"""What stands for a character that cannot be shown or must not act."""

# Control characters, halves of surrogate pairs and what Unicode says is no character: no font has
# them, and JSON for the template may not contain them. Overrides, embeddings and isolates of
# direction: one of them in a name turns round what stands behind it. The marks U+200E and U+200F
# stay: names need them, and they act on nothing but their neighbours.
_NOT_SHOWN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
    )
    + "]"
)
_BREAKS: Final = re.compile("\r\n|[\t\n\r\u2028\u2029]")


def visible_text(text: str) -> str:
    """Return `text` with a mark for each character that cannot be shown or would act on others.

    Tabs and line breaks stay.
    """
    return _NOT_SHOWN.sub(MARK, text)


def one_line(text: str) -> str:
    """Return `text` as visible text, with a space for each tab and line break."""
    return visible_text(_BREAKS.sub(" ", text))
