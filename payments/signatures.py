"""Whether a webhook was signed by who knows one of our secrets, and just now.

Stripe's scheme: the header `Stripe-Signature` is `t=SECONDS,v1=HEX[,v1=HEX…]`, where each HEX is
the HMAC-SHA256 of `SECONDS.BODY` under one signing secret. Parts of other schemes are passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

OLDEST = timedelta(seconds=300)
"""What was signed longer ago may have been recorded, and is sent again by somebody else."""
FURTHEST_AHEAD = timedelta(seconds=60)
"""So far the signer's clock may be ahead of ours."""
LONGEST_HEADER = 2048
"""Characters: room for a dozen signatures; there are two while a secret is rotated."""
MOST_SIGNATURES = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# ASCII digits alone: int() would take those of every script.
_SECONDS = re.compile(r"[0-9]{1,11}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class SignatureRefusedError(ValueError):
    """The body is not to be believed. The message says why, and names no secret."""


def check_signature(header: str, body: bytes, *, secrets: Sequence[str], now: datetime) -> None:
    """Return when the body was signed with one of the secrets, up to 300 s ago.

    `header` is the value of Stripe-Signature. Raises SignatureRefusedError.
    """
    signed_at, signatures = _parts(header)
    text = signed_at.encode() + b"." + body
    # Each with each, so that how long it takes tells nothing about which one was near.
    matches = [
        hmac.compare_digest(hmac.new(secret.encode(), text, hashlib.sha256).hexdigest(), signature)
        for secret in secrets
        for signature in signatures
    ]
    if not any(matches):
        raise SignatureRefusedError("No signature in it is one of our signing secrets'.")
    age = (now - _EPOCH) // timedelta(seconds=1) - int(signed_at)
    if age > OLDEST.total_seconds():
        raise SignatureRefusedError(f"It was signed {age} s ago.")
    if -age > FURTHEST_AHEAD.total_seconds():
        raise SignatureRefusedError(f"It was signed {-age} s ahead of our clock.")


def sign(body: bytes, *, secret: str, now: datetime) -> str:
    """Return the header that says that the body was signed now."""
    signed_at = (now - _EPOCH) // timedelta(seconds=1)
    text = str(signed_at).encode() + b"." + body
    return f"t={signed_at},v1={hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"


def _parts(header: str) -> tuple[str, list[str]]:
    """Return when it was signed, as it stands there, and the signatures of our scheme."""
    if not header:
        raise SignatureRefusedError("It has no Stripe-Signature.")
    if len(header) > LONGEST_HEADER:
        raise SignatureRefusedError("Its Stripe-Signature is too long.")
    pairs = [part.partition("=") for part in header.split(",")]
    if not all(mark for _, mark, _ in pairs):
        raise SignatureRefusedError("Its Stripe-Signature cannot be read.")
    times = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):
        raise SignatureRefusedError("Its Stripe-Signature does not say once when it was signed.")
    if not 0 < len(signatures) <= MOST_SIGNATURES:
        raise SignatureRefusedError(
            f"Its Stripe-Signature has {len(signatures)} signatures of the scheme v1."
        )
    if not all(map(_DIGEST.fullmatch, signatures)):
        raise SignatureRefusedError("Its Stripe-Signature has a signature that is none.")
    return times[0], signatures
