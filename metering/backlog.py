"""Draining streams after an outage: folding a host until nothing is left, several at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connections

from metering.aggregator import aggregate_host
from metering.models import Host
from metering.queries import stream_lag
from metering.stream import StreamUnavailableError, Waiting

# Another worker may hold the cursor for as long as a commit takes.
TRIES = 20
PAUSE_S = 0.5


@dataclass(slots=True)
class Drained:
    """What became of one host's backlog. `problem` says why something is left of it."""

    name: str
    before: Waiting | None = None
    after: Waiting | None = None
    samples: int = 0
    seconds: float = 0.0
    problem: str = ""


def drain(
    hosts: list[Host], *, workers: int, watch: Callable[[Drained, Waiting], None]
) -> list[Drained]:
    """Fold every host's stream to its end, `workers` hosts at once; return how each went.

    Safe to run beside workers: a host that one of them folds is waited for. `watch` is called
    as a host gets on, from several threads.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="drain") as pool:
        return list(pool.map(lambda host: _drain_apart(host, watch), hosts))


def look(host: Host) -> Drained:
    """Return what waits in a host's stream, and fold nothing."""
    try:
        waiting = stream_lag(host.pk)
    except StreamUnavailableError as error:
        return Drained(host.name, problem=str(error))
    return Drained(host.name, waiting, waiting)


def _drain_apart(host: Host, watch: Callable[[Drained, Waiting], None]) -> Drained:
    drained = Drained(host.name)
    begun = time.monotonic()
    try:
        drained.before = drained.after = stream_lag(host.pk)
        _drain(host, drained, watch)
    except Exception as error:  # noqa: BLE001 - one host's failure is not the others'
        drained.problem = f"{type(error).__name__}: {error}"
    finally:
        drained.seconds = time.monotonic() - begun
        # The thread's own; its next host opens another.
        connections.close_all()
    return drained


def _drain(host: Host, drained: Drained, watch: Callable[[Drained, Waiting], None]) -> None:
    tries = 0
    left = stream_lag(host.pk)
    while left.entries and tries < TRIES:
        drained.samples += aggregate_host(host.pk, now=datetime.now(UTC))
        before, left = left, stream_lag(host.pk)
        drained.after = left
        watch(drained, left)
        if left.entries < before.entries:
            tries = 0
        elif left.entries:
            tries += 1
            time.sleep(PAUSE_S)
    if left.entries:
        drained.problem = (
            "nothing was folded for a while: does another worker hold the host's cursor? See "
            "metering_status"
        )
