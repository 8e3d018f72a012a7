"""What each round gives the workers to do, and what it has to come to.

The expected figures are reckoned without the product: invoices in plain fractions, usage in closed
form. Everything counts from the first round on, so that what goes wrong later is seen as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Protocol
from unittest.mock import patch
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from billing.models import Invoice
from metering import numbering, stream
from metering.meters import Meter
from metering.models import LateUsage, Refusal, StreamCursor
from metering.period import Period
from metering.queries import usage_totals
from metering.samples import Batch
from tests.faults.billing_month import INVOICED, Customer, find_faults, open_customers
from tests.faults.rounds import plain
from tests.faults.rounds.crew import Crew
from tests.faults.rounds.points import ANOTHERS, REACHED_WITHIN_S
from tests.metering.fleet import Fleet
from tests.metering.test_pipeline import COUNTERS, assert_segments_sum_to_their_readings
from tests.processes import wait_until

ACCOUNTS_A_ROUND = 4
SANDBOXES = 4
TICKS_A_ROUND = 30
TICK = timedelta(seconds=5)
TOTAL = INVOICED.index("total_amount")


class Work(Protocol):
    """Work that comes in rounds, in whole numbers of `unit`."""

    name: str
    unit: str
    points: Sequence[str]
    # Where a kill at any time is counted from.
    begins: str
    # About as long as that work takes a worker.
    lasts_s: float

    def put_in(self) -> None:
        """Give the workers a round's work."""

    def wait_at(self, point: str, workers: Crew) -> None:
        """Return when the worker that stands at this point may be killed."""

    def expected(self) -> int:
        """Return what all rounds so far have to come to."""

    def found(self) -> int:
        """Return what they come to by now."""

    def faults(self) -> list[str]:
        """Return what is wrong with the work of all rounds so far, a sentence each."""


class Billing:
    """Accounts whose month is over: each is to have one right invoice."""

    name = "billing run"
    unit = "cents invoiced"
    points: Sequence[str] = (
        "accounts claimed",
        "drafts inserted",
        "before the commit of drafts",
        "after the commit of drafts",
        "drafts claimed",
        "usage frozen",
        "invoices written",
        "numbers taken",
        "before the commit of invoices",
        "after the commit of invoices",
        "before the acknowledgement",
    )
    begins = points[0]
    lasts_s = 0.4

    def __init__(self, random: Random) -> None:
        self.random = random
        self.customers: list[Customer] = []

    def put_in(self) -> None:
        self._open(ACCOUNTS_A_ROUND)

    def wait_at(self, point: str, workers: Crew) -> None:
        """Do not wait."""

    def _open(self, count: int) -> list[Customer]:
        # At once, so that one sweep finds all of them.
        with transaction.atomic():
            new = open_customers(count, random=self.random, now=datetime.now(UTC))
        self.customers += new
        return new

    def expected(self) -> int:
        return sum(customer.owed[TOTAL] for customer in self.customers)

    def found(self) -> int:
        numbered = Invoice.objects.exclude(number=None)
        return int(100 * (numbered.aggregate(total=Sum("total_amount"))["total"] or 0))

    def faults(self) -> list[str]:
        return find_faults(self.customers)


class PlainBilling(Billing):
    """The same by a plain task: a message for each account."""

    name = "billing by plain tasks"
    points: Sequence[str] = plain.BILLING_POINTS
    begins = points[0]

    def __init__(self, random: Random, workers: Crew) -> None:
        super().__init__(random)
        self.workers = workers

    def put_in(self) -> None:
        for customer in self._open(1):
            self.workers.send(plain.BILL, str(customer.account_id), queue="billing")


class Aggregation:
    """Passes over a host: each sample is to be counted once."""

    name = "aggregation"
    unit = "ns of cpu counted"
    points: Sequence[str] = (
        "cursor locked",
        "entries read and folded",
        "usage inserted",
        "cursor moved",
        "before the commit of usage",
        # From here to the next one lies what would be XACK's place.
        "after the commit of usage",
        "stream trimmed",
        "before the acknowledgement",
    )
    begins = points[0]
    lasts_s = 0.1
    meters: Sequence[Meter] = (*COUNTERS, Meter.MEMORY)

    def __init__(self, rounds: int) -> None:
        # All of the fleet's time is past by now, and young enough to be believed.
        self.begun = datetime.now(UTC) - (rounds + 1) * TICKS_A_ROUND * TICK
        self.fleet = Fleet(registered_at=self.begun)
        self.fleet.now = self.begun
        for number in range(1, SANDBOXES + 1):
            self.fleet.add(f"sbx-{number}", cpu_ns_per_ms=1_000_003 * number)

    def put_in(self) -> None:
        passes: list[tuple[UUID, Batch]] = []
        with patch.object(numbering, "append", lambda host, one: passes.append((host.pk, one))):
            self.fleet.run_without_aggregating(ticks=TICKS_A_ROUND, tick=TICK)
        # At once, so that a worker is killed in the middle of them.
        for host_id, batch in passes:
            stream.append(host_id, batch)

    def wait_at(self, point: str, workers: Crew) -> None:
        """At the cursor, wait for another worker that is after the same entries."""
        if point != "cursor locked":
            return
        before = workers.fault.notes().count(ANOTHERS)
        wait_until(
            lambda: workers.fault.notes().count(ANOTHERS) > before,
            seconds=REACHED_WITHIN_S,
            what=f"another worker to come to the cursor; {workers.logs}",
        )

    def expected(self) -> int:
        return self._expected(Meter.CPU)

    def _expected(self, meter: Meter) -> int:
        total = 0
        for sandbox in self.fleet.source.sandboxes:
            total += sandbox.usage(Period(self.begun, self.fleet.now))[meter]
            if meter is Meter.MEMORY:
                # Nothing says what it held before it was first read.
                total -= sandbox.usage(Period(self.begun, self.begun + TICK))[meter]
        return total

    def found(self) -> int:
        return self._found().get(Meter.CPU, 0)

    def _found(self) -> dict[Meter, int]:
        # Rows are of whole windows.
        whole = Period(self.begun - timedelta(hours=1), self.fleet.now + timedelta(hours=1))
        return usage_totals(self.fleet.account_id, whole)

    def faults(self) -> list[str]:
        found = self._found()
        wrong = [
            f"{meter} is {found.get(meter, 0)} and has to be {self._expected(meter)}"
            for meter in self.meters
            if found.get(meter, 0) != self._expected(meter)
        ]
        return wrong + self._other_faults()

    def _other_faults(self) -> list[str]:
        assert_segments_sum_to_their_readings()
        lost = StreamCursor.objects.get(host=self.fleet.host_id).lost_batch_count
        counts = {
            "batches lost": lost,
            "refused": Refusal.objects.count(),
            "late": LateUsage.objects.count(),
        }
        return [f"{what}: {count}" for what, count in counts.items() if count]


class PlainAggregation(Aggregation):
    """The same by a plain task, which knows of cpu time only."""

    name = "aggregation by plain tasks"
    points: Sequence[str] = plain.AGGREGATION_POINTS
    begins = points[0]
    meters = (Meter.CPU,)

    def _other_faults(self) -> list[str]:
        return []
