"""Answers kept for a while, which may be given again instead of being reckoned anew.

Nothing that decides about money reads them, and inside a transaction they are neither read nor
kept. What is kept carries the token that its account and kind had before it was reckoned;
`forget` takes the token away, so what is kept late, of what was true before, counts for nobody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from functools import cache, partial
from secrets import token_bytes
from threading import Lock
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection, transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")

CACHE_TIMEOUT_S = 0.1
"""So long a request waits for the cache at most, however it fails."""
LEFT_ALONE_S = 5
"""So long nobody in this process asks a cache that failed."""

# The number goes up when an answer changes its shape, so that nobody is given one of the old.
_PREFIX = "answers:1"
_TOKEN_BYTES = 16
# Longer than anything is kept.
_TOKEN_S = 7 * 86_400
_MOST_OWED = 10_000

_READ = """
local token = redis.call('GET', KEYS[1])
if token then return {token, redis.call('GET', KEYS[2])} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {ARGV[1], false}
"""

logger = logging.getLogger(__name__)


class Kind(StrEnum):
    """What an answer is about."""

    SUBSCRIPTION = "subscription"
    CURRENT_USAGE = "current_usage"
    CLOSED_INVOICE = "closed_invoice"


SUBSCRIPTION_S = 3600
CURRENT_USAGE_S = 30
CLOSED_INVOICE_S = 24 * 3600


class CacheUnavailableError(Exception):
    """The cache does not answer, or did not a moment ago. Do without it."""


class _Breaker:
    """Says whether the cache may be asked. After a failure one asker at a time finds out."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failed = False
        self._next_try = 0.0

    def lets_through(self) -> bool:
        """Return whether to ask now."""
        with self._lock:
            if not self._failed:
                return True
            if monotonic() < self._next_try:
                return False
            self._next_try = monotonic() + LEFT_ALONE_S
            return True

    def note(self, *, failed: bool) -> None:
        """Take in how asking went."""
        with self._lock:
            self._failed = failed
            self._next_try = monotonic() + LEFT_ALONE_S


class _Owed:
    """What could not be forgotten while the cache did not answer, to be forgotten first after."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: dict[str, None] = {}

    def take(self) -> list[str]:
        """Return the keys, and owe them no more."""
        if not self._keys:
            return []
        with self._lock:
            keys = list(self._keys)
            self._keys.clear()
        return keys

    def add(self, keys: Iterable[str]) -> None:
        """Owe these keys too; of too many, the oldest are left to expire."""
        with self._lock:
            self._keys |= dict.fromkeys(keys)
            for key in list(self._keys)[:-_MOST_OWED]:
                del self._keys[key]


_breaker = _Breaker()
_owed = _Owed()


def cached(
    account_id: UUID,
    kind: Kind,
    seconds: int | Callable[[Any], int],
    make: Callable[[], Any],
    *,
    part: str = "",
) -> Any:
    """Return what `make` gives, made at most `seconds` ago and after the last `forget`.

    `seconds` may be reckoned from what was made; at 0 it is not kept. It has to be JSON. `part`
    tells several answers of one kind apart, as an invoice's id does. Inside a transaction, and
    where the cache does not answer, it is made anew.
    """
    if connection.in_atomic_block:
        return make()
    token_key = _token_key(account_id, kind)
    keys = (token_key, f"{token_key}:{part}")
    try:
        if owed := _owed.take():
            _drop(owed)
        token, kept = with_cache(
            lambda client: client.eval(_READ, len(keys), *keys, token_bytes(_TOKEN_BYTES), _TOKEN_S)
        )
    except CacheUnavailableError:
        return make()
    if kept is not None and kept.startswith(token):
        return json.loads(kept[len(token) :])
    made = make()
    text, kept_s = json.dumps(made), seconds if isinstance(seconds, int) else seconds(made)
    if kept_s > 0:
        with suppress(CacheUnavailableError):
            with_cache(lambda client: client.set(keys[1], token + text.encode(), ex=kept_s))
    return json.loads(text)


def forget(account_id: UUID, *kinds: Kind) -> None:
    """Let nothing that is kept of the account count once the transaction commits.

    Of these kinds, or of all. A cache that does not answer is told when it does again, by this
    process; what it keeps may be read until then, as long as it is kept.
    """
    forget_of([account_id], *kinds)


def forget_of(account_ids: Iterable[UUID], *kinds: Kind) -> None:
    """Do what `forget` does, of many accounts at once."""
    keys = [_token_key(account_id, kind) for account_id in account_ids for kind in kinds or Kind]
    if keys:
        transaction.on_commit(partial(_forget, keys), robust=True)


def with_cache(use: Callable[[Any], T]) -> T:
    """Return what `use` gets from the cache's client, in one round trip.

    Raises CacheUnavailableError, and for a few seconds after that at once.
    """
    if not _breaker.lets_through():
        raise CacheUnavailableError("The cache failed a moment ago.")
    try:
        answer = use(_client())
    except redis.RedisError as error:
        _breaker.note(failed=True)
        logger.warning("cache is left alone", extra={"because": str(error)})
        raise CacheUnavailableError(f"The cache did not answer: {error}") from error
    _breaker.note(failed=False)
    return answer


def _forget(keys: list[str]) -> None:
    with suppress(CacheUnavailableError):
        _drop([*_owed.take(), *keys])


def _drop(keys: list[str]) -> None:
    """Delete the keys. Raises CacheUnavailableError, and then owes them."""
    try:
        with_cache(lambda client: client.unlink(*keys))
    except CacheUnavailableError:
        _owed.add(keys)
        raise


def _token_key(account_id: UUID, kind: Kind) -> str:
    return f"{_PREFIX}:{account_id}:{kind}"


@cache
def _client() -> Any:
    # redis-py types each answer as a union over protocols and decodings it could be set to.
    return redis.Redis.from_url(
        settings.CACHE_REDIS_URL,
        socket_timeout=CACHE_TIMEOUT_S,
        socket_connect_timeout=CACHE_TIMEOUT_S,
        # By itself it tries again and again, and each time waits as long.
        retry=Retry(NoBackoff(), 0),
    )
