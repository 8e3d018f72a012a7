"""What is seen while it runs: every few seconds how much waits, and what each process takes."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import redis
from django.conf import settings

from billing.due import billing_due
from billing.models import Invoice
from metering import stream
from metering.queries import stream_lag
from metering.samples import Records, unpack
from payments.models import WebhookEvent
from payments.queries import longest_due_s, oldest_event_s
from soulbox.celery import QUEUES
from soulbox.queue_metrics import COLLECT, BrokerQueues
from tests.soak.crew import Crew
from tests.soak.trees import Taken, taken

EVERY_S = 5
INTERVAL_MS = 2_000
ENTRIES_AT_ONCE = 1_000
OF_TASKS = (*QUEUES, COLLECT, "unacked")
"""How the keys begin that are there while a task is."""
_NAMED = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+")


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much there is still to do, and for how long the oldest of it has been due."""

    entries: int
    stream_s: float
    tasks: int
    held: int
    accounts: int
    billing_s: float
    events: int
    events_s: float
    unpaid: int
    collecting_s: float

    def left(self) -> dict[str, int]:
        """Return what has to be nothing at the end."""
        return {
            "batches not folded": self.entries,
            "tasks in queues": self.tasks,
            "tasks taken and not finished": self.held,
            "accounts to be billed": self.accounts,
            "webhooks not applied": self.events,
            "invoices to be collected": self.unpaid,
        }


@dataclass(frozen=True, slots=True)
class Look:
    """One look: seconds since the loads began, what waits, and what each process takes.

    `machine_load` is the load average, of whatever else runs there too.
    """

    at_s: float
    waiting: Waiting
    final: int
    stream_length: int
    taken: Mapping[str, Taken]
    keys: Counter[str]
    machine_load: float


@dataclass
class Passes:
    """The passes over the host, as they come into its stream."""

    host_id: UUID
    began_ms: list[int] = field(default_factory=list)
    # How far from two seconds apart two readings of a sandbox are, in ms: how many are.
    errors_ms: Counter[int] = field(default_factory=Counter)
    fewest_samples: int = 0
    _entry_id: str = "0-0"
    _before: Records | None = None

    def follow(self) -> None:
        """Take what has come since the last call."""
        for entry in stream.read_after(self.host_id, self._entry_id, limit=ENTRIES_AT_ONCE):
            self._entry_id = entry.entry_id
            batch = unpack(entry.packed)
            if len(batch.samples):
                self._take(batch.collected_ms, batch.samples)

    def forget(self) -> None:
        """Count from here on; the next pass is compared with the last one."""
        self.began_ms, self.errors_ms, self.fewest_samples = [], Counter(), 0

    def _take(self, collected_ms: int, samples: Records) -> None:
        before, self._before = self._before, samples
        self.began_ms.append(collected_ms)
        if before is None:
            return
        count = len(samples)
        self.fewest_samples = min(self.fewest_samples or count, count)
        _, old, new = np.intersect1d(before["life"], samples["life"], return_indices=True)
        apart = samples["read_ms"][new] - before["read_ms"][old]
        values, counts = np.unique(np.abs(apart - INTERVAL_MS), return_counts=True)
        self.errors_ms.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))


@dataclass
class Watch:
    """Looks at the installation over and over; keeps all it saw."""

    crew: Crew
    host_id: UUID
    passes: Passes
    looks: list[Look] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _next: float = 0.0

    @property
    def at_s(self) -> float:
        """Seconds since the loads began."""
        return time.monotonic() - self._began

    def tick(self) -> None:
        """Follow the stream, and look when it is time."""
        self.passes.follow()
        if self.at_s >= self._next:
            self.look()
            self._next = self.at_s + EVERY_S

    def look(self) -> Look:
        """Look now."""
        seen = Look(
            at_s=self.at_s,
            waiting=waiting(self.host_id),
            final=Invoice.objects.filter(number__isnull=False).count(),
            stream_length=stream.lengths([self.host_id])[self.host_id],
            taken=taken(self.crew.pids()),
            keys=keys_without_expiry(),
            machine_load=os.getloadavg()[0],
        )
        self.looks.append(seen)
        return seen


def waiting(host_id: UUID) -> Waiting:
    """Return how much there is to do now."""
    now = datetime.now(UTC)
    lag, due = stream_lag(host_id), billing_due(now=now)
    tasks, held = _tasks()
    received = WebhookEvent.objects.filter(status=WebhookEvent.Status.RECEIVED)
    final = Invoice.objects.filter(number__isnull=False)
    return Waiting(
        entries=lag.entries,
        stream_s=(now - lag.oldest_at).total_seconds() if lag.oldest_at else 0.0,
        tasks=tasks,
        held=held,
        accounts=due.accounts,
        billing_s=due.longest.total_seconds(),
        events=received.count(),
        events_s=oldest_event_s(now),
        unpaid=final.exclude(status=Invoice.Status.PAID).count(),
        collecting_s=longest_due_s(now),
    )


def _tasks() -> tuple[int, int]:
    """Return how many tasks wait in queues, and how many workers hold.

    Not those of hosts' queues: nobody takes from one whose host `manage.py collect` reads, and a
    few stay in it.
    """
    told = {
        (sample.name, sample.labels.get("queue")): int(sample.value)
        for family in BrokerQueues().collect()
        for sample in family.samples
    }
    queues = sum(
        count
        for (name, queue), count in told.items()
        if name == "soulbox_queue_length" and queue != COLLECT
    )
    return queues, told["soulbox_queue_unacknowledged", None]


def keys_without_expiry() -> Counter[str]:
    """Return how many keys of each kind Redis would keep for ever; tasks are counted elsewhere."""
    kinds: Counter[str] = Counter()
    for url in (settings.REDIS_URL, settings.STREAM_REDIS_URL, settings.CACHE_REDIS_URL):
        with redis.Redis.from_url(url) as server:
            keys = list(server.scan_iter(count=1_000))
            pipeline = server.pipeline(transaction=False)
            for key in keys:
                pipeline.ttl(key)
            for key, left in zip(keys, pipeline.execute(), strict=True):
                kind = _NAMED.sub("*", key.decode())
                if left == -1 and not kind.startswith(OF_TASKS):
                    kinds[kind] += 1
    return kinds
