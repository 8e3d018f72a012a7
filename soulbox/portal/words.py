"""What the pages call things, and how they write figures for people."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from billing.models import Invoice
from billing.money import Money
from metering.meters import GB, UNITS, Meter

METER_NAMES: Mapping[Meter, str] = {
    Meter.CPU: "CPU time",
    Meter.MEMORY: "Memory",
    Meter.NETWORK_EGRESS: "Network egress",
    Meter.NETWORK_INGRESS: "Network ingress",
    Meter.STORAGE: "Storage",
    Meter.GPU: "GPU time",
    Meter.DISK_READ: "Disk reads",
    Meter.DISK_WRITE: "Disk writes",
    Meter.CPU_ALLOCATED: "Allocated CPU",
    Meter.MEMORY_ALLOCATED: "Allocated memory",
}
# What is counted in bytes is shown in GB; of the rest the unit of prices.
_SHOWN_IN: Mapping[Meter, tuple[str, int]] = {
    Meter.CPU: ("s", UNITS[Meter.CPU].size),
    Meter.MEMORY: ("GB-s", UNITS[Meter.MEMORY].size),
    Meter.NETWORK_EGRESS: ("GB", GB),
    Meter.NETWORK_INGRESS: ("GB", GB),
    Meter.STORAGE: ("GB-h", UNITS[Meter.STORAGE].size),
    Meter.GPU: ("s", UNITS[Meter.GPU].size),
    Meter.DISK_READ: ("GB", GB),
    Meter.DISK_WRITE: ("GB", GB),
    Meter.CPU_ALLOCATED: ("s", UNITS[Meter.CPU_ALLOCATED].size),
    Meter.MEMORY_ALLOCATED: ("GB-s", UNITS[Meter.MEMORY_ALLOCATED].size),
}
UNIT_NAMES: Mapping[str, str] = {
    "cpu_seconds": "s",
    "gpu_seconds": "s",
    "cpu_allocated_seconds": "s",
    "memory_gb_seconds": "GB-s",
    "memory_allocated_gb_seconds": "GB-s",
    "storage_gb_hours": "GB-h",
    "network_egress_gb": "GB",
    "network_ingress_gb": "GB",
    "disk_read_bytes": "bytes",
    "disk_write_bytes": "bytes",
}
INVOICE_STATES: Mapping[str, str] = {
    Invoice.Status.DRAFT: "Draft",
    Invoice.Status.PENDING: "Due",
    Invoice.Status.PAID: "Paid",
    Invoice.Status.PAYMENT_FAILED: "Payment failed",
    Invoice.Status.PENDING_RETRY: "Payment failed, tried again",
    Invoice.Status.UNCOLLECTIBLE: "Not collected",
    Invoice.Status.VOID: "Void",
}
_SMALLEST = Decimal("0.01")
_BYTES = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def money_words(money: Money) -> str:
    """Return an amount with a comma between thousands, and a true minus: −1,234.50 USD."""
    return f"{Decimal(money.text):,} {money.currency}".replace("-", "\N{MINUS SIGN}")


def quantity_words(meter: Meter, stored: int) -> str:
    """Return a stored quantity in the unit that people read: 3,600 s."""
    unit, size = _SHOWN_IN[meter]
    return f"{number_words(Fraction(stored, size))} {unit}"


def number_words(exact: Fraction) -> str:
    """Return a number to two decimals, or that it is less than the smallest shown."""
    if 0 < exact < _SMALLEST:
        return f"< {_SMALLEST}"
    hundredths = round(exact * 100)
    return f"{Decimal(hundredths).scaleb(-2):,.2f}".rstrip("0").rstrip(".")


def bytes_words(count: int) -> str:
    """Return a number of bytes in the largest unit that it has one of."""
    size, unit = next((pair for pair in _BYTES if count >= pair[0]), (1, "bytes"))
    return f"{number_words(Fraction(count, size))} {unit}"


def percent_words(part: Fraction) -> str:
    """Return a fraction in percent, to a tenth: 99.5 %. Only all of it is 100 %."""
    tenths = int(part * 1000) if part < 1 else round(part * 1000)
    return f"{Decimal(tenths).scaleb(-1):,.1f}".removesuffix(".0") + " %"
