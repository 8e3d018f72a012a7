"""The secrets that webhooks are signed with. They are in no table, and shown once.

A secret is the HMAC-SHA256 of a random seed under SECRET_KEY. The row keeps the seed, and the
SHA-256 of the secret to know by which SECRET_KEY it was made: so a copy of the database signs
nothing, and a new SECRET_KEY leaves secrets as they are while the old one is among
SECRET_KEY_FALLBACKS.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.crypto import salted_hmac

from billing.models import WebhookEndpoint

_SALT = "billing.webhook_secrets"


class SecretLostError(Exception):
    """No SECRET_KEY of ours made this secret. The endpoint needs a new one."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret's key, and what a row keeps of it."""

    seed: str
    check: str
    key: bytes


def new_secret() -> NewSecret:
    """Return a secret that nobody has had."""
    seed = secrets.token_hex(32)
    key = _key(seed, settings.SECRET_KEY)
    return NewSecret(seed, _check(key), key)


def keys_of(endpoint: WebhookEndpoint, *, now: datetime) -> list[bytes]:
    """Return the keys that sign for an endpoint now: two while a secret is rotated.

    Raises SecretLostError.
    """
    keys = [_find(endpoint.secret_seed, endpoint.secret_check)]
    if endpoint.old_secret_until and now < endpoint.old_secret_until:
        keys.append(_find(endpoint.old_secret_seed, endpoint.old_secret_check))
    return keys


def made_by(endpoint: WebhookEndpoint) -> int:
    """Return by which secret an endpoint's newest was made: 0 SECRET_KEY, 1 the first fallback.

    Raises SecretLostError.
    """
    return _found(endpoint.secret_seed, endpoint.secret_check)[0]


def _find(seed: str, check: str) -> bytes:
    return _found(seed, check)[1]


def _found(seed: str, check: str) -> tuple[int, bytes]:
    for number, secret_key in enumerate((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)):
        key = _key(seed, secret_key)
        if hmac.compare_digest(_check(key), check):
            return number, key
    raise SecretLostError("SECRET_KEY was changed since. Rotate the endpoint's secret.")


def _key(seed: str, secret_key: str) -> bytes:
    return salted_hmac(_SALT, seed, secret=secret_key, algorithm="sha256").digest()


def _check(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
