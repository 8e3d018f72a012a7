"""The stream of packed batches between collecting and aggregating, one for each host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from secrets import token_hex
from typing import Any
from uuid import UUID

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from metering.period import from_ms, to_ms
from metering.samples import Batch, pack

# Numbering and appending are one step, so that a lost batch leaves a hole whoever writes. A Redis
# that was killed may come up without its newest batches, and without their numbers: they are not
# given again, or nobody would see that batches are missing.
# No MAXLEN and no EXPIRE: both take entries that nobody has folded yet.
_APPEND = """
local sequence = redis.call('INCR', KEYS[2])
if sequence <= tonumber(ARGV[2]) then
    sequence = tonumber(ARGV[2]) + 1
    redis.call('SET', KEYS[2], sequence)
end
return {redis.call('XADD', KEYS[1], '*', 'n', sequence, 'b', ARGV[1]), sequence}
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
"""

# A page is as many entries as make about this much, so that a page of large ones fits.
PAGE_BYTES = 8 * 2**20
PAGE_ENTRIES = 200
COLLECTING_LIMIT_S = 30
LOOK_TIMEOUT_S = 0.5


class StreamUnavailableError(Exception):
    """Redis did not take or give a batch; the message says why. Counters lose nothing by it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch as it lies in the stream, still packed, with its number on the host."""

    entry_id: str
    sequence: int
    packed: bytes


@cache
def _redis() -> Any:
    # redis-py types each answer as a union over protocols and decodings it could be set to.
    return redis.Redis.from_url(
        settings.STREAM_REDIS_URL,
        socket_timeout=settings.STREAM_TIMEOUT_S,
        socket_connect_timeout=settings.STREAM_TIMEOUT_S,
        health_check_interval=10,
    )


@cache
def _looking() -> Any:
    # Without a second try: who looks on has another answer.
    return redis.Redis.from_url(
        settings.STREAM_REDIS_URL,
        socket_timeout=LOOK_TIMEOUT_S,
        socket_connect_timeout=LOOK_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def _stream_key(host_id: UUID) -> str:
    return f"metrics:stream:{host_id}"


def append(host_id: UUID, batch: Batch, *, after: int = 0) -> Entry:
    """Append one batch, numbered above `after`, and return its entry.

    Raises StreamUnavailableError.
    """
    packed = pack(batch)
    keys = (_stream_key(host_id), f"metrics:sequence:{host_id}")
    try:
        entry_id, sequence = _redis().eval(_APPEND, len(keys), *keys, packed, after)
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not take the batch: {error}") from error
    return Entry(entry_id.decode(), int(sequence), packed)


def read_after(host_id: UUID, entry_id: str, *, limit: int) -> Iterator[Entry]:
    """Yield at most `limit` entries after `entry_id`, oldest first, a page at a time.

    Raises StreamUnavailableError.
    """
    size = 1
    while limit > 0:
        try:
            page = _redis().xrange(_stream_key(host_id), f"({entry_id}", "+", min(limit, size))
        except redis.RedisError as error:
            raise StreamUnavailableError(f"Redis did not give the stream: {error}") from error
        if not page:
            return
        for raw_id, fields in page:
            entry_id = raw_id.decode()
            yield Entry(entry_id, int(fields[b"n"]), fields[b"b"])
        limit -= len(page)
        largest = max(len(fields[b"b"]) for _, fields in page)
        size = min(max(PAGE_BYTES // max(largest, 1), 1), PAGE_ENTRIES)


def read_back(host_id: UUID, *, since_ms: int, limit: int) -> Iterator[bytes]:
    """Yield at most `limit` batches, packed, the newest first, back to a time in ms.

    For who looks on and will not wait: Redis has `LOOK_TIMEOUT_S` for each page.
    Raises StreamUnavailableError.
    """
    newest = "+"
    size = 2
    while limit > 0:
        try:
            page = _looking().xrevrange(
                _stream_key(host_id), newest, str(since_ms), min(limit, size)
            )
        except redis.RedisError as error:
            raise StreamUnavailableError(f"Redis did not give the stream: {error}") from error
        for _, fields in page:
            yield fields[b"b"]
        if len(page) < min(limit, size):
            return
        newest, limit, size = f"({page[-1][0].decode()}", limit - len(page), 4


def waiting_since(host_id: UUID, entry_id: str) -> datetime | None:
    """Return when the first entry after `entry_id` was appended; None when there is none.

    Raises StreamUnavailableError.
    """
    try:
        page = _redis().xrange(_stream_key(host_id), f"({entry_id}", "+", 1)
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not give the stream: {error}") from error
    return from_ms(order(page[0][0].decode())[0]) if page else None


def lengths(host_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many entries each host's stream has, folded ones too.

    For who looks on and will not wait: Redis has `LOOK_TIMEOUT_S`. Raises StreamUnavailableError.
    """
    pipeline = _looking().pipeline(transaction=False)
    for host_id in host_ids:
        pipeline.xlen(_stream_key(host_id))
    try:
        return dict(zip(host_ids, pipeline.execute(), strict=True))
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not tell of the streams: {error}") from error


def memory_share() -> float:
    """Return how much of what Redis may use is used; 0.0 when it has no limit of its own.

    Raises StreamUnavailableError.
    """
    try:
        memory = _redis().info("memory")
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not answer: {error}") from error
    limit = int(memory["maxmemory"])
    return int(memory["used_memory"]) / limit if limit else 0.0


@contextmanager
def collecting(host_id: UUID) -> Iterator[bool]:
    """Say whether no other pass over this host is going on, and keep others out meanwhile.

    Two passes at once would be harmless; this only spares the engine. A pass that dies gives
    way after `COLLECTING_LIMIT_S`. Raises StreamUnavailableError.
    """
    key, token = f"metrics:collecting:{host_id}", token_hex(8)
    try:
        is_free = bool(_redis().set(key, token, nx=True, ex=COLLECTING_LIMIT_S))
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not answer: {error}") from error
    try:
        yield is_free
    finally:
        with suppress(redis.RedisError):  # It expires by itself.
            _redis().eval(_RELEASE, 1, key, token)


def trim(host_id: UUID, *, folded: str, now: datetime) -> int:
    """Remove entries that are folded and older than the retention; return how many.

    Of a stream over its share of memory the oldest folded ones go sooner. `folded` is the entry
    the database's cursor stands at: nothing from there on is touched, however old or large it is.
    """
    key = _stream_key(host_id)
    kept_from = now - timedelta(hours=settings.METERING_STREAM_RETENTION_H)
    try:
        bound = min(order(folded), max((to_ms(kept_from), 0), _over_share(key)))
        removed = _redis().xtrim(key, minid=f"{bound[0]}-{bound[1]}", approximate=True)
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not trim the stream: {error}") from error
    return int(removed)


def _over_share(key: str) -> tuple[int, int]:
    """Return up to where a stream has to go to keep to its share of memory.

    It is taken to have been as busy at all times. Where it was not, the trim after the next
    fold corrects it.
    """
    size = _redis().memory_usage(key) or 0
    if size <= settings.METERING_STREAM_MAX_BYTES:
        return (0, 0)
    (oldest,), (newest,) = (
        [order(raw_id.decode()) for raw_id, _ in entries]
        for entries in (_redis().xrange(key, count=1), _redis().xrevrange(key, count=1))
    )
    surplus = size - settings.METERING_STREAM_MAX_BYTES
    return (oldest[0] + (newest[0] - oldest[0]) * surplus // size + 1, 0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of a stream is not folded yet, and how much memory all of it takes."""

    entries: int
    oldest_at: datetime | None
    stream_bytes: int


def waiting(host_id: UUID, *, folded: str, sequence: int) -> Waiting:
    """Return what lies after the entry that the database's cursor stands at, and its number.

    Raises StreamUnavailableError.
    """
    key = _stream_key(host_id)
    try:
        newest = int(_redis().get(f"metrics:sequence:{host_id}") or 0)
        size = _redis().memory_usage(key) or 0
    except redis.RedisError as error:
        raise StreamUnavailableError(f"Redis did not tell of the stream: {error}") from error
    oldest_at = waiting_since(host_id, folded)
    if oldest_at is None:
        return Waiting(entries=0, oldest_at=None, stream_bytes=int(size))
    return Waiting(
        # Numbers that begin again mean that Redis lost its data, and the cursor is not there yet.
        entries=newest - sequence if newest > sequence else newest,
        oldest_at=oldest_at,
        stream_bytes=int(size),
    )


def order(entry_id: str) -> tuple[int, int]:
    """Return what sorts entries as they follow each other: ms since 1970, number in the ms."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)
