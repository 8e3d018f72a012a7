"""What a provider's invoice says: the lines of ours, so that both come to the same cent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from billing.money import Money
from metering.period import Period
from payments.provider import BillLine

MOST_LINES: Final = 250
"""Stripe refuses an invoice of more; above it lines are rolled up by meter."""
MOST_CHARACTERS: Final = 500
"""Of a description, and of a value of metadata."""


@dataclass(frozen=True, slots=True)
class Item:
    """A line of an invoice of ours. `meter` is empty where it is about no usage."""

    description: str
    meter: str
    amount: Money
    period: Period


@dataclass(frozen=True, slots=True)
class Charge:
    """An invoice, or a top-up, as it is to be collected.

    `off` is what lowers or raises the sum of the items, by name: discounts, credits, tax.
    `owed` is what is to be paid of it now.
    """

    name: str
    reference: str
    period: Period
    items: Sequence[Item]
    off: Sequence[tuple[str, Money]]
    owed: Money


def bill_lines(charges: Sequence[Charge]) -> list[BillLine]:
    """Return the lines of a provider's invoice for these charges, which come to what is owed.

    An item, a discount and so on each have a line; with more than MOST_LINES the items are rolled
    up by meter, and in the end by charge.
    """
    for lines_of in (_by_item, _by_meter, _in_one):
        lines = [line for charge in charges for line in lines_of(charge)]
        if len(lines) <= MOST_LINES:
            return lines
    raise ValueError(f"{len(charges)} charges are more than {MOST_LINES} lines.")


def breakdown(charges: Sequence[Charge]) -> dict[str, str]:
    """Return what the charges are made of, in words for the provider's metadata."""
    sums: dict[str, Money] = {}
    for charge in charges:
        parts = [(item.meter or "fees", item.amount) for item in charge.items]
        for name, amount in (*parts, *charge.off):
            key = name.lower().replace(" ", "_")
            sums[key] = sums.get(key, Money.zero(amount.currency)) + amount
    return {name: str(amount) for name, amount in sums.items() if amount}


def _by_item(charge: Charge) -> list[BillLine]:
    return _with_rest(
        charge,
        [
            _line(charge, item.description, item.amount, item.period, item.meter)
            for item in charge.items
            if item.amount
        ],
    )


def _by_meter(charge: Charge) -> list[BillLine]:
    sums: dict[str, Money] = {}
    for item in charge.items:
        sums[item.meter] = sums.get(item.meter, Money.zero(item.amount.currency)) + item.amount
    return _with_rest(
        charge,
        [
            _line(charge, f"{meter or 'Fees'}, {charge.name}", amount, charge.period, meter)
            for meter, amount in sums.items()
            if amount
        ],
    )


def _in_one(charge: Charge) -> list[BillLine]:
    return [_line(charge, charge.name, charge.owed, charge.period)]


def _with_rest(charge: Charge, lines: Iterable[BillLine]) -> list[BillLine]:
    """Return the lines with what lowers or raises them, down to what is owed."""
    every = [
        *lines,
        *(_line(charge, name, amount, charge.period) for name, amount in charge.off if amount),
    ]
    listed = Money.total((line.amount for line in every), charge.owed.currency)
    if rest := charge.owed - listed:
        every.append(_line(charge, "Credited or paid before", rest, charge.period))
    return every


def _line(
    charge: Charge, description: str, amount: Money, period: Period, meter: str = ""
) -> BillLine:
    metadata = {"reference": charge.reference}
    if meter:
        metadata["meter"] = meter
    return BillLine(_cut(description), amount, period, metadata)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
