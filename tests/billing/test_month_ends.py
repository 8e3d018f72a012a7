"""A year of month ends in nine time zones, with a beat that was down and a clock that is stepped.

The oracle is the calendar: each month's first midnight in the zone, from the zone's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Sum

from billing import services
from billing.models import Account, CreditGrant, Invoice, InvoiceLine, NumberSeries
from metering.period import WINDOW
from tests.billing.usage import read_streams_until, record_usage

pytestmark = pytest.mark.django_db

ZONES = (
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Europe/Paris",
    "Africa/Casablanca",
    "UTC",
    "America/St_Johns",
    "America/Los_Angeles",
)
YEAR = 2026
MONTHS = 12
NANO = 10**9
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

Clock = Callable[[list[datetime]], Iterator[datetime]]


def midnights(zone: str) -> list[datetime]:
    """Return where the year's months begin in the zone, and where the last one ends, in UTC."""
    firsts = [(YEAR, month) for month in range(1, MONTHS + 1)] + [(YEAR + 1, 1)]
    return [datetime(y, m, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC) for y, m in firsts]


def seconds_used(zone: str, month: int) -> tuple[int, int]:
    """Return what is used in a month's first and last window: another amount in each of all."""
    number = ZONES.index(zone) * MONTHS + month
    return 1_000 + number, 1_000_000 + 1_000 * number


def open_accounts() -> dict[str, Account]:
    """Open an account in each zone, with all its usage of the year."""
    accounts = {}
    for zone in ZONES:
        bounds = midnights(zone)
        account = services.open_account(name=zone, time_zone=zone, now=bounds[0])
        services.subscribe(account.pk, plan_code="professional", now=bounds[0])
        for month, (start, end) in enumerate(pairwise(bounds)):
            first, last = seconds_used(zone, month)
            record_usage(account.pk, start, cpu_s=first)
            record_usage(account.pk, end - WINDOW, cpu_s=last)
        accounts[zone] = account
    return accounts


def down_over_the_boundary(boundaries: list[datetime]) -> Iterator[datetime]:
    """Yield when a sweep comes: long before a month ends anywhere, and late after it, often."""
    yield boundaries[0] - timedelta(days=3)
    for late in (timedelta(hours=20), timedelta(hours=20), timedelta(hours=21), timedelta(days=2)):
        yield boundaries[-1] + late


def stepped_by_an_hour(boundaries: list[datetime]) -> Iterator[datetime]:
    """Yield when sweeps come whose clock goes back and forward by an hour around each boundary."""
    for boundary in boundaries:
        just_over = boundary + 5 * MINUTE
        # Drafted; back before the boundary; final; and back again to when it was only drafted.
        yield from (just_over, just_over - HOUR, just_over + HOUR, just_over)


def sweep(now: datetime) -> None:
    services.grant_due_credits(now)
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)


def assert_one_invoice_a_month(zone: str, account: Account) -> None:
    invoices = Invoice.objects.filter(account=account).order_by("period_start")
    bounds = midnights(zone)
    assert [(i.period_start, i.period_end) for i in invoices] == list(pairwise(bounds)), zone
    assert all(invoice.number for invoice in invoices)
    for month, invoice in enumerate(invoices):
        used = InvoiceLine.objects.get(invoice=invoice, meter="cpu", kind="usage")
        assert used.quantity == sum(seconds_used(zone, month)) * NANO, (zone, month)
        # All of it, neither prorated by a change of clocks nor paid twice.
        assert invoice.subscription_fee == 99, (zone, month)
    grants = CreditGrant.objects.filter(account=account).order_by("period_start")
    granted = [(g.period_start, g.period_end) for g in grants[:MONTHS]]
    assert granted == list(pairwise(bounds)), zone
    # The month that is running has had its credit, and no month had it twice.
    assert len(grants) == MONTHS + 1
    account.refresh_from_db()
    assert account.open_period_start == bounds[-1]
    assert account.parked_reason == ""


@pytest.mark.parametrize("clock", [down_over_the_boundary, stepped_by_an_hour])
def test_each_month_of_each_zone_has_one_invoice_from_midnight_to_midnight(clock: Clock) -> None:
    accounts = open_accounts()
    bounds = {zone: midnights(zone) for zone in ZONES}
    for month in range(1, MONTHS + 1):
        boundaries = sorted(of_zone[month] for of_zone in bounds.values())
        for now in clock(boundaries):
            read_streams_until(now)
            sweep(now)
    for zone, account in accounts.items():
        assert_one_invoice_a_month(zone, account)
    put_in = sum(sum(seconds_used(zone, month)) for zone in ZONES for month in range(MONTHS))
    billed = InvoiceLine.objects.filter(meter="cpu").aggregate(total=Sum("quantity"))["total"]
    assert billed == put_in * NANO
    numbers = sorted(str(invoice.number) for invoice in Invoice.objects.all())
    assert numbers == [
        f"{series.year}-{number:06d}"
        for series in NumberSeries.objects.order_by("year")
        for number in range(1, series.last_number + 1)
    ]
    assert len(numbers) == len(ZONES) * MONTHS
