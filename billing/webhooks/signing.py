"""Signs what is sent as Standard Webhooks says (standardwebhooks.com): libraries verify it.

`webhook-signature` is `v1,BASE64[ v1,BASE64…]`, each the HMAC-SHA256 of `ID.SECONDS.BODY` under one
secret; there are two while a secret is rotated. A secret is `whsec_` and the key in Base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

SECRET_START: Final = "whsec_"  # noqa: S105 - what secrets begin with
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def secret_text(key: bytes) -> str:
    """Return a key as customers get it."""
    return SECRET_START + base64.b64encode(key).decode()


def signed_headers(
    body: bytes, *, message_id: str, keys: Sequence[bytes], now: datetime
) -> Mapping[str, str]:
    """Return the three headers that say who sends the body, and when.

    The id stays the same at each try, so that a receiver can drop what it has.
    """
    seconds = (now - _EPOCH) // timedelta(seconds=1)
    text = f"{message_id}.{seconds}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{_digest(key, text)}" for key in keys),
    }


def _digest(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
