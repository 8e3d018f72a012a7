"""An invoice as a document: everything that is printed, and nothing that has to be looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from billing.charges import PartKind
from billing.lifecycle import InvoiceStatus
from billing.money import Money
from billing.totals import InvoiceTotals, Tax
from metering.period import Period

MOST_LINES: Final = 5_000
"""A document has no more lines than this, of all kinds together."""
MOST_DAYS: Final = 400
"""A document tells the usage of no more days: a year and a month are longer than any period."""

_EXACT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class DocumentKind(StrEnum):
    """What the document is. The value names it in tables and the API."""

    USAGE = "usage"
    FINAL = "final"
    # What a payment provider invoiced by itself, under its own number.
    SUBSCRIPTION = "subscription"
    # Prepaid credit that was bought.
    TOP_UP = "top_up"
    CREDIT_NOTE = "credit_note"


class FeeLineKind(StrEnum):
    """What a line that is not usage is for. The value names it in tables and the API."""

    FEE = "fee"
    UNUSED_FEE = "unused_fee"
    FEE_DISCOUNT = "fee_discount"
    TRUE_UP = "true_up"


@dataclass(frozen=True, slots=True)
class TaxId:
    """A number that a tax office knows somebody by, and what it is called."""

    name: str
    number: str


@dataclass(frozen=True, slots=True)
class Party:
    """Who sells or buys: as printed, the address line by line."""

    name: str
    address: tuple[str, ...] = ()
    tax_ids: tuple[TaxId, ...] = ()


@dataclass(frozen=True, slots=True)
class PricePart:
    """How a part of a line's cost came about: quantity × unit price.

    At a minimum or maximum the unit price is that limit. Both are exact decimals, written out.
    """

    kind: PartKind
    tier: int | None
    quantity: str
    unit_price: str

    def __post_init__(self) -> None:
        _refuse_inexact("PricePart.quantity", self.quantity)
        _refuse_inexact("PricePart.unit_price", self.unit_price)


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One meter's usage in one span, at one price.

    Quantity and unit price are exact decimals, written out. Without a unit price, the parts say
    how the amount came about. `discount` is its share of the discounts, not taken off `amount`.
    """

    description: str
    period: Period
    quantity: str
    unit_price: str | None
    amount: Money
    discount: Money
    parts: tuple[PricePart, ...] = ()

    def __post_init__(self) -> None:
        _refuse_inexact("UsageLine.quantity", self.quantity)
        if self.unit_price is not None:
            _refuse_inexact("UsageLine.unit_price", self.unit_price)


@dataclass(frozen=True, slots=True)
class MeterLines:
    """One meter's lines. `unit` is that of their quantities and prices."""

    meter: str
    name: str
    unit: str
    lines: tuple[UsageLine, ...]

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError(f"MeterLines.lines of {self.meter} is empty.")

    @property
    def amount(self) -> Money:
        """The sum of the lines."""
        return Money.total((line.amount for line in self.lines), self.lines[0].amount.currency)


@dataclass(frozen=True, slots=True)
class FeeLine:
    """A fee, or what is taken off one. `basis` says in words what it was reckoned from."""

    kind: FeeLineKind
    description: str
    period: Period
    amount: Money
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Discount:
    """What one rule took off the usage fee: percent of `base` and a fixed amount, together.

    Discounts on a year's fee are fee lines.
    """

    name: str
    base: Money
    percent: Decimal
    fixed_amount: Money
    amount: Money


@dataclass(frozen=True, slots=True)
class CreditUsed:
    """What one grant paid: its name, as "Monthly credit, May 2026", and how much."""

    name: str
    amount: Money


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction, with its sign, and the span that it corrects, if it is of one."""

    description: str
    amount: Money
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class TopUp:
    """Prepaid credit that is bought. It is taxed when it is spent."""

    description: str
    amount: Money


@dataclass(frozen=True, slots=True)
class DayCost:
    """What the usage of one local day of the account cost."""

    day: date
    amount: Money


@dataclass(frozen=True, slots=True)
class SandboxCost:
    """What one sandbox cost in the period."""

    sandbox: str
    amount: Money


@dataclass(frozen=True, slots=True)
class CreditedInvoice:
    """What a credit note says beside its figures: of which invoice, why, and how it is settled.

    So much is taken off what is owed of the invoice, and the rest became prepaid credit.
    """

    number: str
    issued_on: date | None
    reason: str
    off_due: Money
    as_credit: Money


@dataclass(frozen=True, slots=True)
class InvoiceDocument:
    """An invoice, ready to be printed. Only a draft has no number.

    Raises ValueError where its parts do not sum to its totals, where an amount is finer than its
    currency's smallest unit, or where it is too large; CurrencyMismatchError where currencies mix.
    """

    number: str | None
    kind: DocumentKind
    status: InvoiceStatus
    period: Period
    # The account's: spans are printed in its local time.
    zone: ZoneInfo
    seller: Party
    buyer: Party
    totals: InvoiceTotals
    tax: Tax
    tax_name: str = "Tax"
    issued_on: date | None = None
    due_on: date | None = None
    paid_on: date | None = None
    payment_terms: str = ""
    fees: tuple[FeeLine, ...] = ()
    meters: tuple[MeterLines, ...] = ()
    # In the order in which they were applied.
    discounts: tuple[Discount, ...] = ()
    # Monthly and promotional credit, then prepaid credit, in the order in which they were used.
    credits: tuple[CreditUsed, ...] = ()
    prepaid: tuple[CreditUsed, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    top_ups: tuple[TopUp, ...] = ()
    days: tuple[DayCost, ...] = ()
    sandboxes: tuple[SandboxCost, ...] = ()
    notes: tuple[str, ...] = ()
    # Of a credit note: its lines are the adjustments, above zero what is taken back.
    credited_invoice: CreditedInvoice | None = None

    def __post_init__(self) -> None:
        if (self.number is None) != (self.status is InvoiceStatus.DRAFT) and (
            self.status is not InvoiceStatus.VOID
        ):
            raise ValueError(f"A {self.status} invoice has the number {self.number!r}.")
        count = len(self.fees) + len(self.adjustments) + len(self.top_ups) + len(self.usage_lines)
        if count > MOST_LINES:
            raise ValueError(f"An invoice of {count} lines; no more than {MOST_LINES} are printed.")
        if len(self.days) > MOST_DAYS:
            raise ValueError(f"An invoice of {len(self.days)} days; {MOST_DAYS} are the most.")
        if any(entry.amount.amount < 0 for entry in self.days):
            raise ValueError("The usage of a day costs less than nothing.")
        if self.credited_invoice and self.kind is not DocumentKind.CREDIT_NOTE:
            raise ValueError(f"A document of kind {self.kind} credits an invoice.")
        _refuse_fractions(self._amounts())
        self._refuse_what_does_not_add_up()

    @property
    def currency(self) -> str:
        """The one currency of all amounts."""
        return self.totals.total_amount.currency

    @property
    def usage_lines(self) -> tuple[UsageLine, ...]:
        """The lines of all meters, in order."""
        return tuple(line for group in self.meters for line in group.lines)

    @property
    def top_up(self) -> Money:
        """The prepaid credit that is bought."""
        return Money.total((entry.amount for entry in self.top_ups), self.currency)

    @property
    def taxable(self) -> Money:
        """What the tax is reckoned on: where prices contain it, with it."""
        t = self.totals
        return t.subscription_fee + t.usage_fee - t.discounts - t.credits_used + t.adjustments

    def _refuse_what_does_not_add_up(self) -> None:
        t = self.totals
        total = self.taxable + t.credited + self.top_up
        parts: tuple[tuple[str, Iterable[Money], Money], ...] = (
            ("fees", (line.amount for line in self.fees), t.subscription_fee),
            ("usage", (line.amount for line in self.usage_lines), t.usage_fee),
            ("discounts", (entry.amount for entry in self.discounts), t.discounts),
            ("credits", (entry.amount for entry in self.credits), t.credits_used),
            ("adjustments", (entry.amount for entry in self.adjustments), t.adjustments),
            ("prepaid credit", (entry.amount for entry in self.prepaid), t.prepaid_used),
            ("total", (total,) if self.tax.is_inclusive else (total, t.tax), t.total_amount),
            ("amount due", (t.total_amount, -t.prepaid_used), t.amount_due),
        )
        if credited := self.credited_invoice:
            settled = (credited.off_due, credited.as_credit)
            parts = (*parts, ("settlement", settled, t.total_amount))
        for name, amounts, printed in parts:
            if (reckoned := Money.total(amounts, self.currency)) != printed:
                raise ValueError(f"The {name} add up to {reckoned}, and {printed} is to be shown.")

    def _amounts(self) -> Iterable[Money]:
        t = self.totals
        yield from (t.subscription_fee, t.usage_fee, t.discounts, t.credits_used, t.adjustments)
        yield from (t.tax, t.credited, t.total_amount, t.prepaid_used, t.amount_due)
        yield from (line.amount for line in self.fees)
        yield from (line.amount for line in self.usage_lines)
        yield from (discount.amount for discount in self.discounts)
        yield from (credit.amount for credit in self.credits + self.prepaid)
        yield from (entry.amount for entry in self.adjustments + self.top_ups)
        yield from (entry.amount for entry in self.days)
        yield from (entry.amount for entry in self.sandboxes)
        yield from (line.discount for line in self.usage_lines)
        for discount in self.discounts:
            yield from (discount.base, discount.fixed_amount)
        if credited := self.credited_invoice:
            yield from (credited.off_due, credited.as_credit)


def _refuse_inexact(name: str, text: str) -> None:
    if not _EXACT.fullmatch(text):
        raise ValueError(f"{name} is not a decimal number, written out: {text!r}.")


def _refuse_fractions(amounts: Iterable[Money]) -> None:
    amounts = tuple(amounts)
    # A second currency raises, also where nothing is added to it otherwise.
    Money.total(amounts, amounts[0].currency)
    for money in amounts:
        if Decimal(money.text) != money.amount:
            raise ValueError(f"{money.amount} {money.currency} is not in whole smallest units.")
