"""The rows of each report, a field a column. Amounts are rounded money unless they say exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias
from uuid import UUID

from billing.money import Money

Cell: TypeAlias = (
    str | int | Decimal | Fraction | Money | UUID | date | datetime | Mapping[str, str] | None
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a report. `cells` are in the order of `columns`."""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(field.name for field in fields(cls))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The row's values."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class UsageRow(Row):
    """What one meter came to in one billing period of an account."""

    account_id: UUID
    account: str
    plan: str
    period_start: datetime
    period_end: datetime
    kind: str
    meter: str
    quantity: Fraction | None
    unit: str
    base_quantity: Decimal | None
    base_unit: str
    currency: str
    cost: Money | None
    discount: Money | None
    credits_used: Money | None
    coverage: Decimal | None
    invoice: str
    status: str
    note: str


@dataclass(frozen=True, slots=True)
class SandboxUsageRow(Row):
    """What one sandbox used of one meter in one billing period, and its exact share of the cost."""

    account_id: UUID
    account: str
    period_start: datetime
    period_end: datetime
    sandbox: str
    meter: str
    quantity: Fraction | None
    unit: str
    base_quantity: Decimal | None
    base_unit: str
    currency: str
    raw_cost: Fraction | None
    invoice: str
    status: str
    note: str


@dataclass(frozen=True, slots=True)
class RevenueRow(Row):
    """What one part of invoices came to: added up, the rows are the invoices' totals."""

    currency: str
    invoice_kind: str
    plan: str
    component: str
    meter: str
    invoices: int
    amount: Money


@dataclass(frozen=True, slots=True)
class ReceivableRow(Row):
    """What an account owes in one currency, by how long it is overdue."""

    account_id: UUID
    account: str
    currency: str
    invoices: int
    not_due: Money
    days_1_to_30: Money
    days_31_to_60: Money
    days_61_to_90: Money
    days_over_90: Money
    receivable: Money
    pending: Money
    payment_failed: Money
    pending_retry: Money
    other_status: Money
    uncollectible: Money


@dataclass(frozen=True, slots=True)
class CreditRow(Row):
    """What became of an account's credit of one kind; the balance is the sum of the rest."""

    account_id: UUID
    account: str
    currency: str
    kind: str
    is_liability: str
    granted: Money
    used: Money
    expired: Money
    revoked: Money
    refunded: Money
    other: Money
    balance: Money


@dataclass(frozen=True, slots=True)
class FocusRow(Row):
    """A charge in the FinOps Open Cost and Usage Specification's columns."""

    billed_cost: Money
    effective_cost: Money
    list_cost: Money
    contracted_cost: Money
    billing_account_id: UUID
    billing_account_name: str
    billing_currency: str
    billing_period_start: datetime
    billing_period_end: datetime
    charge_period_start: datetime
    charge_period_end: datetime
    charge_category: str
    charge_class: str | None
    charge_description: str
    charge_frequency: str
    consumed_quantity: Fraction | None
    consumed_unit: str | None
    pricing_category: str | None
    pricing_quantity: Fraction | None
    pricing_unit: str | None
    list_unit_price: Decimal | None
    contracted_unit_price: Decimal | None
    invoice_id: str
    invoice_issuer_name: str
    provider_name: str
    publisher_name: str
    region_id: str | None
    region_name: str | None
    resource_id: str | None
    resource_name: str | None
    resource_type: str | None
    service_category: str
    service_name: str
    sku_id: str | None
    sku_price_id: str | None
    sub_account_id: str | None
    sub_account_name: str | None
    tags: Mapping[str, str]

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the columns' names as the specification writes them."""
        names = (field.name for field in fields(cls))
        return tuple("".join(part.capitalize() for part in name.split("_")) for name in names)


class Sums:
    """The money of a report's rows, added up by currency and column."""

    def __init__(self) -> None:
        self._by_currency: dict[str, dict[str, Money]] = {}

    def add(self, row: Row) -> None:
        """Count one row."""
        for column, cell in zip(row.columns(), row.cells, strict=True):
            if isinstance(cell, Money):
                sums = self._by_currency.setdefault(cell.currency, {})
                sums[column] = sums[column] + cell if column in sums else cell

    def by_currency(self) -> list[tuple[str, Mapping[str, Money]]]:
        """Return each currency with the sums of its columns."""
        return sorted(self._by_currency.items(), key=lambda entry: entry[0])
