"""Which lives events and inspections tell of, and when each began and ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.samples import State
from metering.source import Action, Container, ContainerEvent
from metering.timeline import Span, find_spans

SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS
OVERLAP_NS = 5 * SECOND_NS
TODAY_NS = 1_790_000_000 * SECOND_NS


def event(action: Action, at_ns: int) -> ContainerEvent:
    return ContainerEvent("c", action, at_ns)


def start(at_ns: int) -> ContainerEvent:
    return event(Action.START, at_ns)


def die(at_ns: int) -> ContainerEvent:
    return event(Action.DIE, at_ns)


def container(
    started_ns: int | None, finished_ns: int | None = None, state: State = State.RUNNING
) -> Container:
    return Container("c", {}, state, started_ns, finished_ns)


STOPPED = State.STOPPED


@pytest.mark.parametrize(
    ("recorded", "events", "found", "spans"),
    [
        pytest.param([], [], None, [], id="of a container nobody knows there is none"),
        pytest.param([], [], container(None), [], id="one that never started has none"),
        pytest.param([], [], container(10), [(10, None)], id="an inspection alone tells of one"),
        pytest.param(
            [], [start(12)], container(10), [(10, None)], id="its start event tells of no other"
        ),
        pytest.param([10], [start(12)], None, [(10, None)], id="nor when it is recorded and gone"),
        pytest.param([], [start(12)], None, [(12, None)], id="an event alone tells of one"),
        pytest.param(
            [], [start(12), die(30)], None, [(12, 30)], id="with its end, when it is gone"
        ),
        pytest.param(
            [],
            [start(12), die(30)],
            container(10, 28, STOPPED),
            [(10, 28)],
            id="an inspection's times go before those of events",
        ),
        pytest.param(
            [],
            [start(12), die(13)],
            container(10, 9, STOPPED),
            [(10, 10)],
            id="a process gone before its start was written down has no length",
        ),
        pytest.param(
            [10],
            [die(30), start(42)],
            container(40, 28),
            [(10, 28), (40, None)],
            id="a restarted container tells when its life before ended",
        ),
        pytest.param(
            [10],
            [die(30), start(42), die(50), start(62)],
            container(60, 48),
            [(10, 30), (42, 48), (60, None)],
            id="a life between two that are known has the times of its events",
        ),
        pytest.param(
            [10],
            [die(30), start(62), die(63)],
            container(60, 59, STOPPED),
            [(10, 30), (60, 60)],
            id="what ended before its start was written down ends no life before it",
        ),
        pytest.param(
            [10, 42],
            [die(30), start(42), die(50), start(62)],
            container(60, 48),
            [(10, 30), (42, 48), (60, None)],
            id="one recorded by its event is not found twice",
        ),
        pytest.param(
            [10],
            [start(12), die(30), start(42), die(50)],
            None,
            [(10, 30), (42, 50)],
            id="both lives of a container that is gone are found",
        ),
        pytest.param(
            [10],
            [],
            container(40, 28),
            [(10, 28), (40, None)],
            id="without events an inspection tells of two",
        ),
        pytest.param(
            [10], [], container(40), [(10, 40), (40, None)], id="or that one ended by then"
        ),
        pytest.param(
            [10],
            [],
            container(40, 10),
            [(10, 10), (40, None)],
            id="the one before may have ended at once",
        ),
        pytest.param(
            [10],
            [die(30)],
            container(40, 40),
            [(10, 30), (40, None)],
            id="an end at the start of this one is not of the one before",
        ),
        pytest.param(
            [10], [start(42)], None, [(10, None)], id="a start without an end before is not another"
        ),
        pytest.param(
            {10: 30},
            [start(10 + MINUTE_NS), die(20 + MINUTE_NS)],
            None,
            [(10, 10 + MINUTE_NS), (10 + MINUTE_NS, 20 + MINUTE_NS)],
            id="one that was over when a start came is not what it reports",
        ),
        pytest.param(
            {10: 11},
            [start(12), die(13)],
            None,
            [(10, 13)],
            id="unless it was over in no time",
        ),
        pytest.param(
            {10: 10 + MINUTE_NS},
            [start(10 + MINUTE_NS)],
            None,
            [(10, 10 + MINUTE_NS), (10 + MINUTE_NS, None)],
            id="nor is one that was over at that moment",
        ),
        pytest.param(
            {TODAY_NS: TODAY_NS + 1},
            [start(TODAY_NS + OVERLAP_NS)],
            None,
            [(TODAY_NS, None)],
            id="a start is reported within five seconds",
        ),
        pytest.param(
            {TODAY_NS: TODAY_NS + 1},
            [start(TODAY_NS + OVERLAP_NS + 1)],
            None,
            [(TODAY_NS, TODAY_NS + OVERLAP_NS + 1), (TODAY_NS + OVERLAP_NS + 1, None)],
            id="and not after",
        ),
        pytest.param(
            [],
            [start(10), die(10), start(20)],
            None,
            [(10, 10), (20, None)],
            id="one that was over at once is one all the same",
        ),
        pytest.param(
            [100],
            [],
            container(40, 99),
            [(100, 100), (40, None)],
            id="the one inspected is the last, though its clock stepped back",
        ),
    ],
)
def test_spans(
    recorded: Sequence[int] | dict[int, int],
    events: list[ContainerEvent],
    found: Container | None,
    spans: list[tuple[int, int | None]],
) -> None:
    known = recorded if isinstance(recorded, dict) else dict.fromkeys(recorded)
    assert find_spans(known, events, found) == [Span(*span) for span in spans]


@dataclass(frozen=True)
class Lived:
    """One life as it was, and as its events tell it."""

    started_ns: int
    finished_ns: int
    start_event_ns: int
    die_event_ns: int


@st.composite
def histories(draw: st.DrawFn) -> list[Lived]:
    """Draw lives that follow each other, their events a little late, some over in no time."""
    lived: list[Lived] = []
    at_ns = 10**15
    lag = st.integers(1, 20_000_000)
    for _ in range(draw(st.integers(1, 6))):
        at_ns += draw(st.integers(1, 20 * SECOND_NS))
        started_ns = at_ns
        start_event_ns = started_ns + draw(lag)
        # Its process may have been gone before the engine wrote down that it had started.
        finished_ns = started_ns + draw(st.integers(-5_000_000, 20 * SECOND_NS))
        die_event_ns = max(start_event_ns, finished_ns) + draw(lag)
        lived.append(Lived(started_ns, finished_ns, start_event_ns, die_event_ns))
        at_ns = die_event_ns
    return lived


def told(lived: Sequence[Lived], *, since_ns: int, until_ns: int) -> list[ContainerEvent]:
    events = [start(life.start_event_ns) for life in lived]
    events += [die(life.die_event_ns) for life in lived]
    return sorted(
        (one for one in events if since_ns <= one.at_ns < until_ns), key=lambda one: one.at_ns
    )


def inspected(lived: Sequence[Lived], at_ns: int) -> Container | None:
    begun = [life for life in lived if life.started_ns <= at_ns]
    if not begun:
        return None
    latest = begun[-1]
    if latest.die_event_ns <= at_ns:
        return container(latest.started_ns, latest.finished_ns, State.STOPPED)
    before = begun[-2].finished_ns if len(begun) > 1 else None
    return container(latest.started_ns, before)


class Book:
    """What polls one after the other make of a history: as a pass does, a first end stays."""

    def __init__(self) -> None:
        self.ends: dict[int, int | None] = {}

    def take(self, events: Sequence[ContainerEvent], found: Container | None) -> None:
        for span in find_spans(self.ends, events, found):
            if self.ends.setdefault(span.started_ns, span.ended_ns) is None:
                self.ends[span.started_ns] = span.ended_ns


def polls(lived: Sequence[Lived], steps_ns: Sequence[int]) -> list[tuple[int, int]]:
    """Return the spans that polls ask for, each from a little before the end of the last one."""
    until_ns = lived[0].started_ns - SECOND_NS
    asked = []
    for step_ns in [*steps_ns, lived[-1].die_event_ns + SECOND_NS]:
        since_ns, until_ns = until_ns - OVERLAP_NS, max(until_ns + step_ns, until_ns)
        asked.append((since_ns, until_ns))
    return asked


steps = st.lists(st.integers(1, 15 * SECOND_NS), max_size=15)


@given(lived=histories(), steps_ns=steps)
def test_each_life_is_found_once_however_polls_cut_its_history(
    lived: list[Lived], steps_ns: list[int]
) -> None:
    book = Book()
    exact: set[int] = set()
    for since_ns, until_ns in polls(lived, steps_ns):
        found = inspected(lived, until_ns)
        if found and found.started_ns:
            exact.add(found.started_ns)
        book.take(told(lived, since_ns=since_ns, until_ns=until_ns), found)
    begins = sorted(book.ends)
    assert len(begins) == len(lived)
    for begin, life in zip(begins, lived, strict=True):
        # To the nanosecond where it was inspected, else as its events say.
        assert begin == (life.started_ns if life.started_ns in exact else life.start_event_ns)
        assert book.ends[begin] in {
            max(life.finished_ns, begin),
            life.die_event_ns,
            # Its end was not seen yet when the next one was inspected.
            *(after for after in begins if after > life.die_event_ns),
        }


@given(lived=histories(), steps_ns=steps)
def test_lives_never_overlap(lived: list[Lived], steps_ns: list[int]) -> None:
    book = Book()
    for since_ns, until_ns in polls(lived, steps_ns):
        events = told(lived, since_ns=since_ns, until_ns=until_ns)
        book.take(events, inspected(lived, until_ns))
    begins = sorted(book.ends)
    for begin, after in pairwise(begins):
        end = book.ends[begin]
        assert end is not None
        assert begin <= end <= after


@given(lived=histories(), steps_ns=steps, data=st.data())
def test_events_that_were_missed_never_make_a_second_life(
    lived: list[Lived], steps_ns: list[int], data: st.DataObject
) -> None:
    book = Book()
    for since_ns, until_ns in polls(lived, steps_ns):
        events = told(lived, since_ns=since_ns, until_ns=until_ns)
        # A ring that ran over has lost the older ones.
        kept = data.draw(st.integers(0, len(events)))
        book.take(events[len(events) - kept :], inspected(lived, until_ns))
    for begin in book.ends:
        within = [life for life in lived if life.started_ns <= begin <= life.start_event_ns]
        assert len(within) == 1
    assert len(book.ends) <= len(lived)
