"""When a container's lives began and ended, from what events and an inspection say together.

An inspection tells the exact times of the latest life, and the end of the one before. Of lives
between two inspections only events tell; an event comes a little after what it reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metering.samples import State
from metering.source import Action, Container, ContainerEvent


@dataclass(frozen=True, slots=True)
class Span:
    """One life of a container, in ns since 1970; `ended_ns` is None while nobody saw it end."""

    started_ns: int
    ended_ns: int | None


def find_spans(
    recorded_ns: Iterable[int], events: Sequence[ContainerEvent], container: Container | None
) -> list[Span]:
    """Return the lives of one container that are in view, in order.

    `recorded_ns` are the starts of those that are recorded, `events` the container's own in
    order, and `container` its inspection, made after the last event; None: it is gone.
    """
    died = [event.at_ns for event in events if event.action is Action.DIE]
    begins = set(recorded_ns)
    if container is not None and container.started_ns is not None:
        begins.add(container.started_ns)
    for event in events:
        if event.action is Action.START and not _reports(event.at_ns, begins, died):
            begins.add(event.at_ns)
    ordered = sorted(begins)
    nexts: list[int | None] = [*ordered[1:], None]
    return [
        Span(begin, _end(begin, after, died, container))
        for begin, after in zip(ordered, nexts, strict=False)
    ]


def _reports(start_ns: int, begins: set[int], died: Sequence[int]) -> bool:
    """Return whether a start event reports a life that is known: one it died not before it."""
    before = [begin for begin in begins if begin <= start_ns]
    return bool(before) and not any(max(before) <= at_ns <= start_ns for at_ns in died)


def _end(
    begin: int, after: int | None, died: Sequence[int], container: Container | None
) -> int | None:
    """Return when the life that began at `begin`, before the one at `after`, was over."""
    latest = container.started_ns if container else None
    finished = container.finished_ns if container else None
    if container is not None and latest == begin:
        if container.state is not State.STOPPED:
            return None
        # A process may be gone before its start is written down.
        return max(begin if finished is None else finished, begin)
    if after is not None and after == latest and finished is not None and begin <= finished < after:
        # A restarted container still shows when its life before ended.
        return finished
    until = [at_ns for at_ns in died if begin <= at_ns and (after is None or at_ns <= after)]
    # Nobody saw it end: it had when the next began.
    return until[0] if until else after
