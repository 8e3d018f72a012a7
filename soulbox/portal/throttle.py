"""Counts of tries in the cache, so that passwords cannot be guessed nor mail boxes filled."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from django.http import HttpRequest

from billing.caching import CacheUnavailableError, with_cache

QUARTER_S = 15 * 60
HOUR_S = 60 * 60


@dataclass(frozen=True, slots=True)
class Limit:
    """So many tries of one thing within so many seconds from the first of them."""

    name: str
    most: int
    within_s: int


# Of one name from one address; of a name from anywhere, high enough that locking somebody out
# takes more than a few tries; of an address, behind which an office may sit.
SIGN_IN = Limit("sign-in", 8, QUARTER_S)
SIGN_IN_OF_NAME = Limit("sign-in-name", 60, HOUR_S)
SIGN_IN_OF_ADDRESS = Limit("sign-in-address", 200, QUARTER_S)
MAIL_TO = Limit("mail-to", 4, HOUR_S)
MAIL_FROM_ADDRESS = Limit("mail-from-address", 40, HOUR_S)

_COUNT = """
local tries = redis.call('INCR', KEYS[1])
if tries == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return tries
"""


def is_over(limit: Limit, *about: str) -> bool:
    """Count a try, and return whether there were too many. Without a cache none are counted."""
    key = _key(limit, *about)
    try:
        tries: int = with_cache(lambda client: client.eval(_COUNT, 1, key, limit.within_s))
    except CacheUnavailableError:
        return False
    return tries > limit.most


def may_mail(address: str, request: HttpRequest) -> bool:
    """Count a mail that is asked for, and return whether it may go out."""
    is_over_limit = [
        is_over(MAIL_TO, address),
        is_over(MAIL_FROM_ADDRESS, address_of(request)),
    ]
    return not any(is_over_limit)


def forget(limit: Limit, *about: str) -> None:
    """Count from nothing again, after a try that was right."""
    key = _key(limit, *about)
    with suppress(CacheUnavailableError):
        with_cache(lambda client: client.unlink(key))


def address_of(request: HttpRequest) -> str:
    """Return the address a request comes from, as the server knows it."""
    return str(request.META.get("REMOTE_ADDR", ""))


def _key(limit: Limit, *about: str) -> str:
    # Hashed: what people type is long at will, and may be a password in the wrong field.
    told = hashlib.sha256("\0".join(about).encode()).hexdigest()
    return f"portal:{limit.name}:{told}"
