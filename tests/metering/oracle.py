"""Usage computed one sample at a time with Python integers, sharing no code with the product."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

QUARTER_HOUR_MS = 900_000


@dataclass(frozen=True)
class Sample:
    life: int
    read_ms: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    stopped: bool = False
    hold_ms: int = 10_000


@dataclass
class Totals:
    cpu_ns: int = 0
    memory_byte_ms: int = 0
    running_ms: int = 0
    measured_ms: int = 0
    samples: int = 0


@dataclass
class Oracle:
    """One life that counts from zero at `started_ms`."""

    started_ms: int
    windows: dict[int, Totals] = field(default_factory=lambda: defaultdict(Totals))
    memory_gap_ms: int = 0
    dropped: int = 0

    def __post_init__(self) -> None:
        self.last_ms = self.started_ms
        self.cpu_ns = 0
        self.memory_bytes = 0
        self.held_until_ms = self.started_ms
        self.stopped = False

    def take(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._take_one(sample)

    def _take_one(self, sample: Sample) -> None:
        if sample.read_ms <= self.last_ms:
            self.dropped += 1
            return
        start, end = self.last_ms, sample.read_ms
        growth = 0
        if sample.cpu_ns is not None:
            growth = max(sample.cpu_ns - self.cpu_ns, 0)
            self.cpu_ns = sample.cpu_ns
        edges = [start]
        while edges[-1] < end:
            edges.append(min(end, (edges[-1] // QUARTER_HOUR_MS + 1) * QUARTER_HOUR_MS))
        for piece_start, piece_end in pairwise(edges):
            totals = self.windows[piece_start // QUARTER_HOUR_MS * QUARTER_HOUR_MS]
            totals.cpu_ns += growth * (piece_end - start) // (end - start)
            totals.cpu_ns -= growth * (piece_start - start) // (end - start)
            if self.stopped:
                continue
            totals.running_ms += piece_end - piece_start
            measured = max(min(piece_end, self.held_until_ms) - piece_start, 0)
            totals.measured_ms += measured
            totals.memory_byte_ms += measured * self.memory_bytes
        self.windows[(end - 1) // QUARTER_HOUR_MS * QUARTER_HOUR_MS].samples += 1
        if not self.stopped:
            self.memory_gap_ms += max(end - max(self.held_until_ms, start), 0)
        if sample.stopped:
            self.stopped, self.memory_bytes, self.held_until_ms = True, 0, end
        elif sample.memory_bytes is not None:
            self.memory_bytes = sample.memory_bytes
            self.held_until_ms = end + sample.hold_ms
        self.last_ms = end
