"""Readings as records, whatever a kernel or a customer puts in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metering.meters import Meter
from metering.models import InterfaceReading, Refusal
from metering.readings import Allocation
from metering.samples import Event, Known, State
from metering.sampling import (
    Gone,
    Sampled,
    Turn,
    interface_samples,
    life_samples,
    storage_samples,
)
from metering.simulator import Simulator
from metering.source import Reading, StorageReading
from tests.metering.fleet import TICK, Fleet

ABOUT = Sampled(7, State.RUNNING, Event.PERIODIC, Allocation(10, 20, 1), has_network=True)


def test_a_figure_that_was_not_read_is_marked_unknown() -> None:
    (row,) = life_samples([Reading("c", 5, cpu_ns=0)], {"c": ABOUT}, ())
    assert row["known"] == Known.CPU | Known.ALLOCATION
    assert (row["cpu_ns"], row["memory_bytes"]) == (0, 0)


def test_a_turn_says_nothing_but_its_state() -> None:
    (row,) = life_samples([], {}, [Turn(7, 5, State.PAUSED, Event.CHANGED)])
    assert (row["life"], row["read_ms"], row["known"]) == (7, 5, 0)
    assert row["state"] == State.PAUSED


@pytest.mark.parametrize(
    ("figure", "stored"),
    [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, 2**63 - 1), (2**64 - 1, 2**63 - 1), (-1, -1)],
)
def test_a_figure_over_64_bits_is_the_largest(figure: int, stored: int) -> None:
    reading = Reading("c", 5, cpu_ns=figure, memory_bytes=figure)
    (row,) = life_samples([reading], {"c": ABOUT}, ())
    assert (row["cpu_ns"], row["memory_bytes"]) == (stored, stored)


def test_an_interface_whose_name_does_not_fit_is_named_by_its_number() -> None:
    long = "\N{REPLACEMENT CHARACTER}" * 14
    reading = Reading("c", 5, interfaces={"eth0": (1, 2), long + "a": (3, 4), long + "b": (5, 6)})
    rows = interface_samples([reading], {"c": ABOUT})
    names = [name.decode() for name in rows["name"].tolist()]
    assert names == ["eth0", *(f"{number:016x}" for number in rows["interface"][1:].tolist())]
    assert len(set(names)) == 3


def test_an_interface_without_a_network_of_its_own_is_left_out() -> None:
    reading = Reading("c", 5, interfaces={"eth0": (1, 2)})
    assert len(interface_samples([reading], {"c": replace(ABOUT, has_network=False)})) == 0


def test_storage_of_a_container_without_a_life_is_left_out() -> None:
    readings = [StorageReading("c", 5, 10, 1), StorageReading("other", 5, 10)]
    rows = storage_samples(readings, {"c": 7}, [Gone(8, 6)])
    assert rows.tolist() == [(7, 5, 10, 1, 0), (8, 6, 0, 0, 1)]


class Absurd(Simulator):
    def read(self, container_ids: list[str]) -> list[Reading]:  # type: ignore[override]
        odd = "\N{REPLACEMENT CHARACTER}" * 15
        return [
            replace(
                reading,
                memory_bytes=2**64 - 4096,
                interfaces={odd: (2**64 - 1, 0), "eth0": (1, 1)},
            )
            if reading.container_id.endswith("-absurd")
            else reading
            for reading in Simulator.read(self, container_ids)
        ]


@pytest.mark.django_db
def test_absurd_figures_and_names_of_one_container_cost_its_neighbour_nothing() -> None:
    fleet = Fleet()
    fleet.add("absurd")
    fleet.add("sbx", tx_bytes_per_ms=1)
    source = Absurd(fleet.source.sandboxes, clock=lambda: fleet.now)
    fleet.source = source  # type: ignore[assignment]
    fleet.run(5 * TICK)
    refusal = Refusal.objects.get()
    assert (refusal.reason, refusal.count) == (Refusal.Reason.SAMPLE_UNBELIEVABLE, 2 * 5)
    assert not fleet.host.cursor.problem
    assert fleet.usage()[Meter.CPU] == 500_001 * 10_000
    assert InterfaceReading.objects.get().life.sandbox.sandbox_id == "sbx"
