"""Counts of tries in the cache, so that passwords cannot be guessed nor mail boxes filled."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

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


def is_over(limit: Limit, *about: str) -> bool:
    """Count a try, and return whether there were too many. Without a cache none are counted."""
    key = _key(limit, *about)
    try:
        cache.add(key, 0, limit.within_s)
        return cache.incr(key) > limit.most
    except ValueError:
        # It expired between the two.
        return False
    except RedisError:
        logger.warning("tries are not counted: the cache does not answer")
        return False


def may_mail(address: str, request: HttpRequest) -> bool:
    """Count a mail that is asked for, and return whether it may go out."""
    is_over_limit = [
        is_over(MAIL_TO, address),
        is_over(MAIL_FROM_ADDRESS, address_of(request)),
    ]
    return not any(is_over_limit)


def forget(limit: Limit, *about: str) -> None:
    """Count from nothing again, after a try that was right."""
    try:
        cache.delete(_key(limit, *about))
    except RedisError:
        logger.warning("tries are not forgotten: the cache does not answer")


def address_of(request: HttpRequest) -> str:
    """Return the address a request comes from, as the server knows it."""
    return str(request.META.get("REMOTE_ADDR", ""))


def _key(limit: Limit, *about: str) -> str:
    # Hashed: what people type is long at will, and may be a password in the wrong field.
    told = hashlib.sha256("\0".join(about).encode()).hexdigest()
    return f"portal:{limit.name}:{told}"
