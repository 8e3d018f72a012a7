"""`make demo`: a simulated fleet's month through the real pipeline, checked in closed form.

The month is the last one that is over, in each account's own time zone. Time is virtual: every
service is told what "now" is. What the month must come to is computed here from the fleet's
rates and the published prices alone, with nothing of the product's metering or rating.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from billing.models import Invoice
from billing.periods import Cycle
from billing.services import (
    draft_due_invoices,
    finalise_due_invoices,
    grant_due_credits,
    open_account,
    subscribe,
)
from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.meters import GB, Meter
from metering.period import Period
from metering.queries import usage_totals
from metering.services import register_host
from metering.simulator import SCHEME, SimulatedSandbox, Simulator

# Longer than a window, and no multiple of one, so that steps cross windows' edges.
TICK = timedelta(minutes=20)
TICKS_A_FOLD = 72
SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
# Sandboxes start and stop a little off the ticks, as real ones do.
OFF_TICK = 7 * SECOND
BILLED_AFTER = timedelta(days=1)

# The published prices, by base unit: cpu nanosecond, byte-millisecond, byte.
PRICES = {
    Meter.CPU: Fraction("0.000012") / 10**9,
    Meter.MEMORY: Fraction("0.000004") / (GB * 1000),
    Meter.NETWORK_EGRESS: Fraction("0.02") / GB,
}
# What the usage fee has to reach, and the percent it then brings; the highest first.
VOLUME_RULES = ((2000, 10), (500, 5))
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Customer:
    """One account of the demo: its plan, its zone and how much it runs."""

    name: str
    plan: str | None
    zone: str
    monthly_fee: Decimal
    monthly_credits: Decimal
    cores: Fraction
    memory_gb: int
    account_id: UUID
    month: Period


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the month, as it came out and as it had to."""

    name: str
    found: Fraction | Decimal | int
    expected: Fraction | Decimal | int

    @property
    def is_right(self) -> bool:
        """Return whether both are equal, exactly."""
        return self.found == self.expected


@dataclass(frozen=True, slots=True)
class Statement:
    """What the month came to for one customer."""

    customer: Customer
    invoice: Invoice
    figures: list[Figure]


def run_month(now: datetime, *, say: Callable[[str], None]) -> list[Statement]:
    """Simulate the month before `now` and bill it; return each customer's statement."""
    customers = _customers(now)
    start = min(customer.month.start for customer in customers)
    end = max(customer.month.end for customer in customers)
    for customer in customers:
        _open(customer)
    fleet = [sandbox for customer in customers for sandbox in _sandboxes(customer)]
    host_id = uuid4()
    register_host(host_id=host_id, name=f"demo-{host_id}", endpoint=SCHEME, now=start)

    say(f"Metering {len(fleet)} simulated sandboxes from {start:%Y-%m-%d} to {end:%Y-%m-%d} …")
    samples = _meter(host_id, fleet, start=start, end=end + timedelta(hours=2))
    say(f"{samples:,} samples are folded into usage records. Invoicing …")
    billed_at = end + BILLED_AFTER
    draft_due_invoices(billed_at)
    finalise_due_invoices(billed_at)
    return [_statement(customer, fleet, start) for customer in customers]


def _customers(now: datetime) -> list[Customer]:
    rows = (
        ("Ada's notebook", None, "UTC", "0", "0", Fraction(1, 4), 1),
        ("Borealis Labs", "professional", "America/New_York", "99", "100", Fraction(2), 4),
        ("Chennai Compute", "team", "Asia/Kolkata", "299", "300", Fraction(8), 32),
    )
    return [
        Customer(
            name=name,
            plan=plan,
            zone=zone,
            monthly_fee=Decimal(fee),
            monthly_credits=Decimal(granted),
            cores=cores,
            memory_gb=memory_gb,
            account_id=uuid4(),
            month=_month_before(now, Cycle(ZoneInfo(zone))),
        )
        for name, plan, zone, fee, granted, cores, memory_gb in rows
    ]


def _month_before(now: datetime, cycle: Cycle) -> Period:
    return cycle.before(cycle.containing(now))


def _open(customer: Customer) -> None:
    start = customer.month.start
    open_account(
        name=customer.name, now=start, time_zone=customer.zone, account_id=customer.account_id
    )
    if customer.plan:
        subscribe(customer.account_id, plan_code=customer.plan, now=start)
        grant_due_credits(start)


def _sandboxes(customer: Customer) -> list[SimulatedSandbox]:
    """Return a sandbox for the whole month, one for its first days, and one past its end."""
    month = customer.month
    spans = (
        ("api", month.start + OFF_TICK, None),
        ("batch", month.start + timedelta(days=2) + OFF_TICK, month.start + timedelta(days=9)),
        ("preview", month.end - timedelta(days=3) + OFF_TICK, month.end + timedelta(hours=1)),
    )
    return [
        SimulatedSandbox(
            container_id=f"{customer.account_id}-{name}",
            sandbox_id=name,
            account_id=str(customer.account_id),
            started_at=started_at,
            ended_at=ended_at,
            cpu_ns_per_ms=int(customer.cores * 10**6),
            memory_bytes=customer.memory_gb * GB,
            tx_bytes_per_ms=int(customer.cores * 200),
            rx_bytes_per_ms=3_000,
            disk_write_bytes_per_ms=500,
        )
        for name, started_at, ended_at in spans
    ]


def _ticks(start: datetime, end: datetime) -> Iterator[datetime]:
    while start <= end:
        yield start
        start += TICK


def _meter(host_id: UUID, fleet: list[SimulatedSandbox], *, start: datetime, end: datetime) -> int:
    clock = [start]
    source = Simulator(fleet, clock=lambda: clock[0])
    samples = 0
    for number, moment in enumerate(_ticks(start, end), start=1):
        clock[0] = moment
        collect_host(host_id, now=moment, source=source, interval=TICK)
        if number % TICKS_A_FOLD == 0:
            samples += aggregate_host(host_id, now=moment)
    return samples + aggregate_host(host_id, now=clock[0])


def _statement(
    customer: Customer, fleet: list[SimulatedSandbox], first_tick: datetime
) -> Statement:
    own = [sandbox for sandbox in fleet if sandbox.account_id == str(customer.account_id)]
    expected = dict.fromkeys(PRICES, 0)
    for sandbox in own:
        for meter, quantity in _closed_form(sandbox, customer.month, first_tick).items():
            expected[meter] += quantity
    found = usage_totals(customer.account_id, customer.month)
    costs = {meter: _cents(quantity * PRICES[meter]) for meter, quantity in expected.items()}
    usage_fee = sum(costs.values(), Decimal(0))
    discount = _volume_discount(usage_fee)
    credits_used = min(usage_fee - discount, customer.monthly_credits)
    total = customer.monthly_fee + usage_fee - discount - credits_used

    invoice = Invoice.objects.get(account_id=customer.account_id)
    lines = {line.meter: line.amount for line in invoice.lines.all() if line.meter}
    figures = [Figure(f"{meter} usage", found.get(meter, 0), expected[meter]) for meter in PRICES]
    figures += [Figure(f"{meter} cost", lines[meter], costs[meter]) for meter in PRICES]
    figures += [
        Figure("subscription fee", invoice.subscription_fee, customer.monthly_fee),
        Figure("usage fee", invoice.usage_fee, usage_fee),
        Figure("discounts", invoice.discounts, discount),
        Figure("credits used", invoice.credits_used, credits_used),
        Figure("total", invoice.total_amount, total),
    ]
    return Statement(customer, invoice, figures)


def _closed_form(
    sandbox: SimulatedSandbox, month: Period, first_tick: datetime
) -> dict[Meter, int]:
    """Return what a sandbox uses in a month, less what no reading can know.

    Counters are known up to the last tick before its end; memory from its first tick on.
    """
    first_read = _tick_at_or_after(sandbox.started_at, first_tick)
    ended_at = sandbox.ended_at or month.end + timedelta(days=1)
    last_read = _tick_at_or_after(ended_at, first_tick) - TICK
    counted_ms = _shared_ms(month, sandbox.started_at, last_read)
    held_ms = _shared_ms(month, first_read, ended_at)
    return {
        Meter.CPU: sandbox.cpu_ns_per_ms * counted_ms,
        Meter.MEMORY: sandbox.memory_bytes * held_ms,
        Meter.NETWORK_EGRESS: sandbox.tx_bytes_per_ms * counted_ms,
    }


def _tick_at_or_after(moment: datetime, first_tick: datetime) -> datetime:
    return first_tick + -((first_tick - moment) // TICK) * TICK


def _shared_ms(month: Period, start: datetime, end: datetime) -> int:
    return max((min(end, month.end) - max(start, month.start)) // _MILLISECOND, 0)


def _volume_discount(usage_fee: Decimal) -> Decimal:
    """Return what the published volume rules take off: of those reached, the highest."""
    percent = next((percent for reached, percent in VOLUME_RULES if usage_fee >= reached), 0)
    return _cents(Fraction(usage_fee) * percent / 100)


def _cents(amount: Fraction) -> Decimal:
    exact = Decimal(amount.numerator) / Decimal(amount.denominator)
    return exact.quantize(CENT, ROUND_HALF_UP)
