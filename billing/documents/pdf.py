"""An invoice as PDF, set by typst."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

import typst

from billing.documents.content import content_of
from billing.documents.document import InvoiceDocument

LARGE_CHARACTERS: Final = 50_000
"""A document that is told in more characters than this is forgotten at once."""

FONTS: Final = ("Noto Sans", "Noto Sans CJK", "Noto Color Emoji")
"""Families, or how their names begin, for names on invoices in any script."""

_FOLDER: Final = Path(__file__).parent
_TEMPLATE: Final = _FOLDER / "invoice.typ"
# A compiler takes one document at a time; a second thread would get an error.
_LOCK: Final = Lock()
# typst drops what it kept of a document when it has set as many others after it.
_OTHERS_UNTIL_FORGOTTEN: Final = 10


class RenderedBeforeForkError(Exception):
    """The process was forked from one that had made a PDF, so it would wait for ever."""


def render_pdf(document: InvoiceDocument) -> bytes:
    """Return the document as PDF, byte for byte the same each time on one set of fonts.

    One at a time in a process; other threads run meanwhile. Raises RenderedBeforeForkError.
    """
    # typst's threads do not come along in a fork, and a child would wait for them.
    if _first_process() != os.getpid():
        raise RenderedBeforeForkError(
            "The process that this one was forked from has made a PDF. Make PDFs in workers only."
        )
    # As an input and never as code: whatever a text says, to typst it is a string.
    told = json.dumps(content_of(document))
    with _LOCK:
        # No time of its making: what is set again has to be the same.
        pdf = _compiler().compile(format="pdf", sys_inputs={"invoice": told}, timestamp=0)
        if len(told) > LARGE_CHARACTERS:
            _forget()
    if not isinstance(pdf, bytes):
        raise TypeError(f"typst gave {type(pdf)} for a PDF.")
    return pdf


@cache
def _first_process() -> int:
    return os.getpid()


@cache
def _compiler() -> typst.Compiler:
    """Return the process's compiler, which has searched the machine's fonts.

    It reads files in the template's folder alone.
    """
    return typst.Compiler(_TEMPLATE, root=_FOLDER, font_paths=typst.Fonts())


def fonts_missing() -> list[str]:
    """Return which of FONTS the machine does not have."""
    there = set(typst.Fonts(include_embedded_fonts=False).families())
    return [family for family in FONTS if not any(name.startswith(family) for name in there)]


def _forget() -> None:
    """Let typst drop what it keeps of a large document: 170 MB for an annex of 5,000 rows."""
    without_fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False)
    for _ in range(_OTHERS_UNTIL_FORGOTTEN):
        typst.compile(b"", font_paths=without_fonts)
