"""An invoice as PDF, set by typst."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

import typst

from billing.documents.content import content_of
from billing.documents.document import InvoiceDocument

_FOLDER: Final = Path(__file__).parent
_TEMPLATE: Final = _FOLDER / "invoice.typ"
# A compiler takes one document at a time; a second thread would get an error.
_LOCK: Final = Lock()


def render_pdf(document: InvoiceDocument) -> bytes:
    """Return the document as PDF, byte for byte the same each time on a machine's fonts.

    Takes a moment and lets other threads run meanwhile, one document at a time. May not be called
    before a process forks and then after it: the child would wait for threads it does not have.
    """
    # As an input and never as code: whatever a text says, to typst it is a string.
    inputs = {"invoice": json.dumps(content_of(document))}
    with _LOCK:
        # No time of its making: what is set again has to be the same.
        pdf = _compiler().compile(format="pdf", sys_inputs=inputs, timestamp=0)
    if not isinstance(pdf, bytes):
        raise TypeError(f"typst gave {type(pdf)} for a PDF.")
    return pdf


@cache
def _compiler() -> typst.Compiler:
    """Return the process's compiler: it searches the machine's fonts once and keeps the template.

    It reads files in the template's folder alone.
    """
    return typst.Compiler(_TEMPLATE, root=_FOLDER, font_paths=typst.Fonts())
