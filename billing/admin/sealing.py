"""A file that goes to a page and comes back with the answer, as it was.

In the page and not in a folder or a table: the next request may go to another process, and what
nobody answers leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.core import signing

GOOD_FOR_S = 3600
"""So long after it was shown a file may still be said yes to."""


class SealBrokenError(ValueError):
    """What came back is not what was shown, or too late; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file, and what was shown of it, as a word that its reader knows."""

    content: bytes
    shown: str = ""


class _Plain:
    """Has django.core.signing sign bytes as they are."""

    def dumps(self, value: bytes) -> bytes:
        return value

    def loads(self, value: bytes) -> bytes:
        return value


def seal(sealed: Sealed, *, purpose: str, user_id: int) -> str:
    """Return the file as text for a hidden field, good for this user and purpose alone."""
    return signing.dumps(
        sealed.shown.encode() + b"\n" + sealed.content,
        salt=_salt(purpose, user_id),
        serializer=_Plain,
        compress=True,
    )


def unseal(text: str, *, purpose: str, user_id: int) -> Sealed:
    """Return what was sealed. Raises SealBrokenError."""
    try:
        plain: bytes = signing.loads(
            text,
            salt=_salt(purpose, user_id),
            serializer=_Plain,
            max_age=GOOD_FOR_S,
        )
    except signing.BadSignature:
        raise SealBrokenError(
            "This is over an hour old, or was not shown to you like this. Upload the file again."
        ) from None
    shown, _, content = plain.partition(b"\n")
    return Sealed(content, shown.decode())


def _salt(purpose: str, user_id: int) -> str:
    return f"billing.{purpose}.{user_id}"
