"""Samples as they were sent, each figure within its bounds, and as records of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import numpy as np

from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Batch,
    Event,
    Known,
    State,
    interface_id,
)

STORAGE_INTERVAL_MS = 300_000
# The fold takes no more than this of either; together they make the 8 TiB that are accepted.
LARGEST_PART_OF_STORAGE_BYTES = 4 * 2**40

LIMITS = ("cpu_limit_micro", "memory_limit_bytes", "gpu_count")
Limits = dict[str, int | None]
"""What a life may take: a value, or None where nobody said, for each of LIMITS."""

_PADDING = b"\0\0"


class Fault(StrEnum):
    """What is wrong with a sample, as the answer names it."""

    MISSING = "missing"
    MALFORMED = "malformed"
    NOT_AN_INTEGER = "not_an_integer"
    NEGATIVE = "negative"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_UNIT = "wrong_unit"
    NO_TIME_ZONE = "no_time_zone"
    TOO_OLD = "too_old"
    TOO_FAR_AHEAD = "too_far_ahead"
    BEFORE_START = "before_start"
    NOT_STOPPED = "not_stopped"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_NOT_ACTIVE = "account_not_active"
    ACCOUNT_NOT_OF_KEY = "account_not_of_key"
    LIFE_TAKEN = "life_taken"
    LIFE_STARTED_OTHERWISE = "life_started_otherwise"
    LIFE_ENDED = "life_ended"
    READ_LATER = "read_later"
    CONFLICTING = "conflicting"


@dataclass(frozen=True, slots=True)
class SentSample:
    """One sample as it was sent, each figure within its bounds. None: not said.

    Two samples are equal when they say the same, wherever in the call they stood.
    """

    index: int = field(compare=False)
    account_id: UUID
    sandbox_id: str
    life: str
    started_ms: int
    read_ms: int
    interval_ms: int
    state: State = State.RUNNING
    event: Event = Event.PERIODIC
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    storage_bytes: int | None = None
    cpu_limit_micro: int | None = None
    memory_limit_bytes: int | None = None
    gpu_count: int | None = None
    # Name, received and sent bytes, by name.
    interfaces: tuple[tuple[str, int, int], ...] = ()
    # Name and value, by name; they count where the sample registers its life.
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def subject(self) -> str:
        """Return what a refusal of it is about."""
        return subject_of(str(self.account_id), self.sandbox_id, self.life)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample of a call that is not counted: which one, what is wrong, and the way out."""

    index: int
    field: str
    fault: Fault
    detail: str
    subject: str


def subject_of(account: str, sandbox: str, life: str) -> str:
    """Return account, sandbox and life in one text of at most 128 characters."""
    return f"{account[:36]}/{sandbox[:45]}/{life[:45]}"


def batches(
    samples: Sequence[SentSample], lives: Mapping[str, int], limits: Mapping[int, Limits]
) -> Iterator[Batch]:
    """Yield a batch for each interval among the samples; it bounds how long gauges are held.

    `lives` are the numbers of lives by key, `limits` those that a sample sets, by its index.
    None is a whole pass: a call says nothing of the lives that are not in it.
    """
    by_interval: dict[int, list[SentSample]] = defaultdict(list)
    for sample in samples:
        by_interval[sample.interval_ms].append(sample)
    for interval_ms, group in sorted(by_interval.items()):
        yield Batch(
            collected_ms=0,
            interval_ms=interval_ms,
            samples=np.array(
                [_row(sample, lives[sample.life], limits.get(sample.index)) for sample in group],
                SAMPLE,
            ),
            interfaces=np.array(
                [
                    (interface_id(life, name), life, sample.read_ms, rx, tx, name.encode())
                    for sample in group
                    for life in (lives[sample.life],)
                    for name, rx, tx in sample.interfaces
                ],
                INTERFACE_SAMPLE,
            ),
            storage=np.array(
                [
                    _storage_row(sample, lives[sample.life])
                    for sample in group
                    if sample.storage_bytes is not None or sample.event is Event.STOPPED
                ],
                STORAGE_SAMPLE,
            ),
            storage_interval_ms=STORAGE_INTERVAL_MS,
        )


_FIGURES = {
    "cpu_ns": Known.CPU,
    "memory_bytes": Known.MEMORY,
    "disk_read_bytes": Known.DISK_READ,
    "disk_write_bytes": Known.DISK_WRITE,
}


def _row(sample: SentSample, life: int, limits: Limits | None) -> tuple[int | bytes, ...]:
    """Return a record of SAMPLE."""
    known = Known.ALLOCATION if limits else Known(0)
    for name, bit in _FIGURES.items():
        if getattr(sample, name) is not None:
            known |= bit
    return (
        life,
        sample.read_ms,
        *(getattr(sample, name) or 0 for name in _FIGURES),
        *((limits or {}).get(name) or 0 for name in LIMITS),
        int(known),
        sample.state,
        sample.event,
        _PADDING,
    )


def _storage_row(sample: SentSample, life: int) -> tuple[int, ...]:
    """Return a record of STORAGE_SAMPLE. A life that stopped takes up nothing any more."""
    if sample.event is Event.STOPPED:
        return (life, sample.read_ms, 0, 0, 1)
    storage_bytes = sample.storage_bytes or 0
    layer_bytes = min(storage_bytes, LARGEST_PART_OF_STORAGE_BYTES)
    return (life, sample.read_ms, layer_bytes, storage_bytes - layer_bytes, 0)
