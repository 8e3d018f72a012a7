"""How an invoice says in words what a figure of it was reckoned from."""

from __future__ import annotations

from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from billing.credits import CreditKind
from billing.models import CreditGrant, InvoiceDiscount, InvoiceLine
from billing.money import Money

_SECONDS_OF_A_DAY: Final = 86_400
# Not by strftime: its names are those of the process's locale.
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def fee_basis(line: InvoiceLine, currency: str) -> str:
    """Return what a fee line was reckoned from: the rate and the part of it that is asked for.

    A mirrored fee may have no rate; it was reckoned elsewhere.
    """
    if line.unit_price is None:
        return ""
    rate = _rate_text(line.unit_price, currency)
    what = "Committed minimum of " if line.kind == InvoiceLine.Kind.TRUE_UP else ""
    if line.quantity == line.unit_size:
        shown = f"{what}{rate} {currency}"
    else:
        part, whole, unit = _fraction(int(line.quantity), int(line.unit_size))
        shown = f"{what}{rate} {currency} × {part:,} ÷ {whole:,} {unit}"
    if line.kind == InvoiceLine.Kind.TRUE_UP:
        return f"{shown}, less what usage came to after discounts"
    return shown


def discount_basis(row: InvoiceDiscount | None, currency: str) -> str:
    """Return what a discount is of: percent of its base, and a fixed amount."""
    if row is None:
        return ""
    takes = []
    if row.percent:
        base = Money(row.base_amount, currency)
        takes.append(f"{percent_text(row.percent)} of {base.text} {currency}")
    if row.fixed_amount:
        takes.append(f"{Money(row.fixed_amount, currency).text} {currency}")
    return " + ".join(takes)


def credit_name(grant: CreditGrant, zone: ZoneInfo) -> str:
    """Return what a customer knows a credit by: the month it came for, or what it was given for."""
    if grant.kind == CreditKind.MONTHLY and grant.period_start:
        start = grant.period_start.astimezone(zone)
        return f"Monthly credit, {_MONTHS[start.month - 1]} {start.year}"
    return grant.reason


def percent_text(percent: Decimal) -> str:
    """Return a percentage without the zeros at its end."""
    return f"{percent.normalize():f} %"


def _rate_text(rate: Decimal, currency: str) -> str:
    """Return a rate with the currency's decimals, or with as many as it has."""
    text = Money(rate, currency).text
    return f"{Decimal(text) if Decimal(text) == rate else rate.normalize():,f}"


def _fraction(part: int, whole: int) -> tuple[int, int, str]:
    if part % _SECONDS_OF_A_DAY or whole % _SECONDS_OF_A_DAY:
        return part, whole, "seconds"
    return part // _SECONDS_OF_A_DAY, whole // _SECONDS_OF_A_DAY, "days"
