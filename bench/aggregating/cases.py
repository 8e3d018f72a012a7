"""What is measured, case by case. Each case checks that every way adds up to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bench.aggregating import tables, ways
from bench.aggregating.fleet import Fleet, Readings, Totals, record_fleet
from bench.aggregating.parts import fold_by_part
from bench.aggregating.processes import Cost, Servers, Worker
from bench.aggregating.steady import Steady, measure_steady
from metering import stream
from metering.period import window_start

BEFORE_THE_EDGE = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `samples` are those of one life in the backlog."""

    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    main_size: int = 10_000
    straightforward_size: int = 1_000
    samples: int = 60
    other_samples: tuple[int, ...] = (15, 240)
    # The backlog of the main size that the yardsticks are held against.
    yardstick_samples: int = 240
    repetitions: int = 3
    steady_sandboxes: int = 10_000
    steady_every_s: float = 15
    steady_rounds: int = 5


QUICK = Plan(
    sizes=(200, 1_000, 5_000),
    main_size=1_000,
    straightforward_size=200,
    samples=30,
    other_samples=(15,),
    yardstick_samples=30,
    steady_sandboxes=1_000,
    steady_every_s=5,
    steady_rounds=2,
)


@dataclass(frozen=True, slots=True)
class CatchUp:
    """One backlog and what each repetition of folding it cost."""

    sandboxes: int
    samples: int
    costs: list[Cost]


@dataclass(slots=True)
class Measured:
    """All that was measured."""

    catch_ups: list[CatchUp] = field(default_factory=list)
    straightforward: list[Cost] = field(default_factory=list)
    postgresql: list[Cost] = field(default_factory=list)
    floor: list[Cost] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    steady: list[Steady] = field(default_factory=list)


class DifferentTotalsError(Exception):
    """Two ways gave different sums, so their times compare nothing."""


@dataclass(slots=True)
class _Backlog:
    """A host whose stream holds batches, with the first of them folded by the warm-up."""

    fleet: Fleet
    readings: Readings
    worker: Worker
    servers: Servers
    first: str
    samples: int = 0
    cpu_ns_column: int = 0

    def extend(self, samples: int) -> None:
        """Append batches until there are so many after the first."""
        while self.samples < samples:
            batch = self.readings.next_batch()
            stream.append(self.fleet.host_id, batch)
            self.cpu_ns_column += int(batch.samples["cpu_ns"].sum())
            self.samples += 1

    def fold(self, *, repetitions: int) -> CatchUp:
        """Fold the backlog, each time from the start."""
        costs = []
        for _ in range(repetitions):
            tables.restore_state()
            costs.append(self.worker.call(ways.product, self.fleet.host_id, self.servers))
            self.check("the product", tables.usage())
        return CatchUp(len(self.fleet.lives), self.samples, costs)

    def check(self, way: str, found: Totals) -> None:
        """Raise DifferentTotalsError unless these are the sums of what was appended."""
        expected = self.readings.totals()
        if found != expected:
            raise DifferentTotalsError(f"{way}: {found}, appended were {expected}")


@contextmanager
def _backlog(sandboxes: int, servers: Servers) -> Iterator[_Backlog]:
    tables.empty()
    now = datetime.now(UTC)
    fleet = record_fleet(sandboxes, now=now)
    # A life has 450 samples in a window: of the backlogs only the longest crosses an edge.
    start = window_start(now - timedelta(hours=1)) - BEFORE_THE_EDGE
    readings = Readings(fleet, start=start)
    tables.settle()
    with Worker() as worker:
        stream.append(fleet.host_id, readings.next_batch())
        worker.call(ways.fold, fleet.host_id)
        tables.keep_state()
        first = ways.cursor_of(fleet.host_id)
        yield _Backlog(fleet, readings, worker, servers, first)


def measure(plan: Plan, say: Callable[[str], None]) -> Measured:
    """Measure every case on fresh servers."""
    measured = Measured()
    servers = tables.prepare()
    for size in plan.sizes:
        say(f"{size:,} sandboxes")
        with _backlog(size, servers) as backlog:
            _measure_size(backlog, plan, measured)
    say(f"{plan.steady_sandboxes:,} sandboxes in real time")
    tables.empty()
    fleet = record_fleet(plan.steady_sandboxes, now=datetime.now(UTC))
    tables.settle()
    measured.steady.append(
        measure_steady(fleet, servers, every_s=plan.steady_every_s, rounds=plan.steady_rounds)
    )
    return measured


def _measure_size(backlog: _Backlog, plan: Plan, measured: Measured) -> None:
    size = len(backlog.fleet.lives)
    others = plan.other_samples if size == plan.main_size else ()
    for samples in sorted((plan.samples, *others)):
        backlog.extend(samples)
        measured.catch_ups.append(backlog.fold(repetitions=plan.repetitions))
        if size == plan.straightforward_size and samples == plan.samples:
            _measure_straightforward(backlog, measured)
        if size == plan.main_size and samples == plan.yardstick_samples:
            for _ in range(plan.repetitions):
                _measure_postgresql(backlog, measured)
                _measure_floor(backlog, measured)
            tables.restore_state()
            measured.parts = backlog.worker.call(fold_by_part, backlog.fleet.host_id)


def _measure_straightforward(backlog: _Backlog, measured: Measured) -> None:
    host_id, lives = backlog.fleet.host_id, len(backlog.fleet.lives)
    ways.write_texts(host_id)
    tables.settle()
    cost, found = backlog.worker.call(ways.straightforward, host_id, lives, backlog.servers)
    backlog.check("straightforward", found)
    measured.straightforward.append(cost)


def _measure_postgresql(backlog: _Backlog, measured: Measured) -> None:
    tables.empty_samples()
    cost, found = backlog.worker.call(
        ways.postgresql, backlog.fleet.host_id, backlog.first, backlog.servers
    )
    backlog.check("postgresql", found)
    measured.postgresql.append(cost)


def _measure_floor(backlog: _Backlog, measured: Measured) -> None:
    cost, cpu_ns = backlog.worker.call(
        ways.floor, backlog.fleet.host_id, backlog.first, backlog.servers
    )
    if cpu_ns != backlog.cpu_ns_column:
        raise DifferentTotalsError(f"numpy floor: {cpu_ns}, appended {backlog.cpu_ns_column}")
    measured.floor.append(cost)
