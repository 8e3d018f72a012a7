"""What happens in a month of many customers, drawn from a seed: the plot, not the product.

Two periods are billed: the month, and the one after it, in which late usage is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

GIGABYTE = 1024**3
MONTHS = ((2026, 5), (2026, 6), (2026, 7))
FIRST_DAY = datetime(2026, 5, 1, tzinfo=UTC)
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
HOSTS = 2
PLANS = ("developer", "professional", "team")
# What a card does each time that it is charged; the last two are of customers who do not pay.
GOOD_CARDS = ("pm_card_visa", "pm_card_mastercard")
DECLINED = "pm_card_chargeCustomerFail"
CARDS = (*GOOD_CARDS, *GOOD_CARDS, DECLINED, "")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Load:
    """A container with constant rates, from its start to its end."""

    container: str
    sandbox: str
    host: int
    start: datetime
    end: datetime
    cpu_ns_per_ms: int
    memory_bytes: int
    tx_bytes_per_ms: int


@dataclass(frozen=True)
class Gift:
    """Credit that staff gives: promotional for the month, or prepaid for good."""

    prepaid: bool
    dollars: int
    at: datetime


@dataclass(frozen=True)
class Silence:
    """A host that nobody hears of in `[start, end)`."""

    host: int
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Customer:
    """One account: where it is, what it runs, chooses, is given and pays with."""

    account: UUID
    zone: str
    tax_percent: int
    plan: str
    # Whether and when it chooses another plan.
    choice: tuple[datetime, str] | None
    gift: Gift | None
    card: str
    # The percent of its first payment that goes back.
    refunded_percent: int
    loads: tuple[Load, ...]

    def periods(self) -> tuple[tuple[datetime, datetime], ...]:
        """Return the two billing periods: from local midnight to local midnight."""
        edges = [
            datetime(*month, 1, tzinfo=ZoneInfo(self.zone)).astimezone(UTC) for month in MONTHS
        ]
        return (edges[0], edges[1]), (edges[1], edges[2])


@dataclass(frozen=True)
class Month:
    """All of it. `silences` are known to the world that acts it out, and to nobody who reckons."""

    seed: int
    customers: tuple[Customer, ...]
    silences: tuple[Silence, ...] = field(default=())

    @property
    def start(self) -> datetime:
        """The first customer's midnight, wherever that is."""
        return min(customer.periods()[0][0] for customer in self.customers)

    @property
    def end(self) -> datetime:
        """When the first period is over everywhere, and nobody runs anything any more."""
        ends = [load.end for customer in self.customers for load in customer.loads]
        return max(*ends, *(customer.periods()[0][1] for customer in self.customers))

    @property
    def last_close(self) -> datetime:
        """When the second period is over everywhere."""
        return max(customer.periods()[1][1] for customer in self.customers)


def draw_month(seed: int, *, accounts: int) -> Month:
    """Return the month of a seed: the same seed, the same month."""
    draw = Random(seed)  # noqa: S311 - to be had again, and no secret
    customers = tuple(_customer(draw, number) for number in range(accounts))
    silences = tuple(_silence(draw, host) for host in range(HOSTS) if draw.random() < 0.5)
    return Month(seed, customers, silences)


def _customer(draw: Random, number: int) -> Customer:
    account = UUID(int=draw.getrandbits(128), version=4)
    zone = draw.choice(ZONES)
    start, end = (datetime(*month, 1, tzinfo=ZoneInfo(zone)) for month in MONTHS[:2])
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    plan = draw.choice(PLANS)
    others = [other for other in PLANS if other != plan]
    return Customer(
        account=account,
        zone=zone,
        tax_percent=draw.choice((0, 0, 19, 20)),
        plan=plan,
        choice=(_moment(draw, start, end), draw.choice(others)) if draw.random() < 0.4 else None,
        gift=(
            Gift(draw.random() < 0.5, draw.randrange(1, 200), _moment(draw, start, end))
            if draw.random() < 0.4
            else None
        ),
        card=draw.choice(CARDS),
        refunded_percent=draw.choice((0, 0, 0, 25, 100)),
        loads=tuple(_loads(draw, number, start, end)),
    )


def _loads(draw: Random, number: int, start: datetime, end: datetime) -> Iterator[Load]:
    """Yield a sandbox or two, each stopped and started again now and then."""
    for sandbox in range(draw.choice((1, 1, 2))):
        host = draw.randrange(HOSTS)
        at = _moment(draw, start, end - 6 * HOUR)
        for life in range(draw.choice((1, 1, 2, 4))):
            # Some end past the month, none later than a day.
            lasts = timedelta(milliseconds=draw.randrange(60_000, 12 * 86_400_000))
            ends = min(at + lasts, end + timedelta(milliseconds=draw.randrange(1, 86_400_000)))
            yield Load(
                container=f"{number}-{sandbox}-{life}",
                sandbox=f"sbx-{sandbox}",
                host=host,
                start=at,
                end=ends,
                cpu_ns_per_ms=draw.choice((0, 10**5, 10**6, 10**7, 10**8)) * draw.randrange(1, 10),
                memory_bytes=draw.randrange(1, 200 * GIGABYTE),
                tx_bytes_per_ms=draw.randrange(0, 50_000),
            )
            at = ends + timedelta(milliseconds=draw.randrange(1, 3 * 86_400_000))
            if at >= end:
                break


def _silence(draw: Random, host: int) -> Silence:
    """Return a silence of hours in the month, or one over its end."""
    if draw.random() < 0.6:
        start = datetime(*MONTHS[1], 1, tzinfo=UTC) - timedelta(hours=draw.randrange(14, 40))
        return Silence(host, start, start + timedelta(hours=draw.randrange(60, 90)))
    start = FIRST_DAY + timedelta(hours=draw.randrange(24, 27 * 24))
    return Silence(host, start, start + timedelta(hours=draw.randrange(1, 60)))


def _moment(draw: Random, start: datetime, end: datetime) -> datetime:
    """Return a time in `[start, end)`, to the millisecond."""
    return start + timedelta(
        milliseconds=draw.randrange((end - start) // timedelta(milliseconds=1))
    )
