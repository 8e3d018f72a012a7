"""When a container's lives began and ended, from what events and an inspection say together.

An inspection tells the exact times of the latest life, and the end of the one before. Of lives
between two inspections only events tell; an event comes a little after what it reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metering.samples import State
from metering.source import Action, Container, ContainerEvent

# A start event comes within this of the start it reports. No longer than polls overlap: a life
# that began and ended in less was then seen with both of its events.
_REPORTED_WITHIN_NS = 5 * 10**9


@dataclass(frozen=True, slots=True)
class Span:
    """One life of a container, in ns since 1970; `ended_ns` is None while nobody saw it end."""

    started_ns: int
    ended_ns: int | None


def find_spans(
    recorded_ns: Mapping[int, int | None],
    events: Sequence[ContainerEvent],
    container: Container | None,
) -> list[Span]:
    """Return the lives of one container that are in view, in order.

    `recorded_ns` are the starts of those that are recorded with their ends, `events` the
    container's own in order, and `container` its inspection, made after the last event; None:
    it is gone. A recorded end is not told again.
    """
    died = [event.at_ns for event in events if event.action is Action.DIE]
    begins = set(recorded_ns)
    if container is not None and container.started_ns is not None:
        begins.add(container.started_ns)
    for event in events:
        if event.action is Action.START and not _reports(event.at_ns, begins, recorded_ns, died):
            begins.add(event.at_ns)
    latest = container.started_ns if container else None
    # The latest is that also where the host's clock stepped back before it.
    ordered = sorted(begins, key=lambda begin: (begin == latest, begin))
    nexts: list[int | None] = [*ordered[1:], None]
    return [
        Span(begin, _end(begin, after, died, container))
        for begin, after in zip(ordered, nexts, strict=False)
    ]


def _reports(
    start_ns: int,
    begins: set[int],
    recorded_ns: Mapping[int, int | None],
    died: Sequence[int],
) -> bool:
    """Return whether a start event reports a life that is known: one it died not before it."""
    before = [begin for begin in begins if begin <= start_ns]
    if not before:
        return False
    begin = max(before)
    if any(begin <= at_ns <= start_ns for at_ns in died):
        return False
    # Its death may be out of view. A process may be gone before its start is reported, though.
    ended_ns = recorded_ns.get(begin)
    was_over = ended_ns is not None and ended_ns <= start_ns
    return not was_over or start_ns - begin <= _REPORTED_WITHIN_NS


def _end(
    begin: int, after: int | None, died: Sequence[int], container: Container | None
) -> int | None:
    """Return when the life that began at `begin`, before the one at `after`, was over."""
    if container is not None and container.started_ns == begin:
        if container.state is not State.STOPPED:
            return None
        # A process may be gone before its start is written down.
        return max(container.finished_ns or begin, begin)
    if (
        container is not None
        and container.state is not State.STOPPED
        and after is not None
        and after == container.started_ns
        and container.finished_ns is not None
        and begin <= container.finished_ns < after
    ):
        # A restarted container that runs still shows when its life before ended.
        return container.finished_ns
    until = [at_ns for at_ns in died if begin <= at_ns and (after is None or at_ns <= after)]
    if until or after is None:
        return until[0] if until else None
    # Nobody saw it end: it had when the next began.
    return max(after, begin)
