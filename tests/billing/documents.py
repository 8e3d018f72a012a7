"""Invoices as documents, for the tests that print them."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import typst

from billing.charges import PartKind
from billing.documents.document import (
    Adjustment,
    CreditUsed,
    DayCost,
    Discount,
    DocumentKind,
    FeeLine,
    FeeLineKind,
    InvoiceDocument,
    MeterLines,
    Party,
    PricePart,
    SandboxCost,
    TaxId,
    UsageLine,
)
from billing.lifecycle import InvoiceStatus
from billing.money import Money
from billing.totals import Tax, add_up
from metering.period import Period

FONTS = {"Noto Sans", "Noto Sans Arabic", "Noto Sans CJK SC", "Noto Color Emoji"}
# In CI a font that is missing is a failure.
needs_fonts = pytest.mark.skipif(
    "CI" not in os.environ and not set(typst.Fonts().families()) >= FONTS,
    reason="the Noto fonts are not installed",
)

MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
MAY_IN_BERLIN = Period(datetime(2026, 4, 30, 22, tzinfo=UTC), datetime(2026, 5, 31, 22, tzinfo=UTC))
SELLER = Party(
    "SoulBox GmbH",
    ("Lindenstraße 12", "10969 Berlin", "Germany"),
    (TaxId("VAT ID", "DE123456789"),),
)
BUYER = Party(
    "Northwind Robotics Ltd.",
    ("Accounts payable", "48 Harbour Road, 3rd floor", "Bristol BS1 5TY", "United Kingdom"),
    (TaxId("VAT ID", "GB987654321"), TaxId("Company no.", "07654321")),
)


def money(amount: str, currency: str = "USD") -> Money:
    return Money(Decimal(amount), currency)


def usage_line(
    quantity: str,
    unit_price: str | None,
    amount: Money,
    *,
    name: str,
    period: Period = MAY,
    discount: Money | None = None,
    parts: tuple[PricePart, ...] = (),
) -> UsageLine:
    nothing = Money.zero(amount.currency)
    return UsageLine(name, period, quantity, unit_price, amount, discount or nothing, parts)


def document(
    *,
    currency: str = "USD",
    fees: tuple[FeeLine, ...] = (),
    meters: tuple[MeterLines, ...] = (),
    discounts: tuple[Discount, ...] = (),
    credits_used: tuple[CreditUsed, ...] = (),
    adjustments: tuple[Adjustment, ...] = (),
    prepaid: tuple[CreditUsed, ...] = (),
    tax: Tax | None = None,
) -> InvoiceDocument:
    """Add the parts up, as billing does, and say the rest as usual."""
    lines = [line for group in meters for line in group.lines]
    tax = tax or Tax()
    return InvoiceDocument(
        number="SB-2026-000123",
        kind=DocumentKind.USAGE,
        status=InvoiceStatus.PENDING,
        period=MAY,
        zone=ZoneInfo("UTC"),
        seller=SELLER,
        buyer=BUYER,
        totals=add_up(
            subscription_fee=Money.total((line.amount for line in fees), currency),
            usage_fee=Money.total((line.amount for line in lines), currency),
            discounts=Money.total((entry.amount for entry in discounts), currency),
            credits_used=Money.total((entry.amount for entry in credits_used), currency),
            adjustments=Money.total((entry.amount for entry in adjustments), currency),
            tax=tax,
            prepaid_available=Money.total((entry.amount for entry in prepaid), currency),
        ),
        tax=tax,
        tax_name="VAT",
        issued_on=date(2026, 6, 3),
        due_on=date(2026, 6, 17),
        payment_terms="Payable within 14 days of issue, to the account named in your portal.",
        fees=fees,
        meters=meters,
        discounts=discounts,
        credits=credits_used,
        prepaid=prepaid,
        adjustments=adjustments,
    )


def one_meter(name: str, unit: str, *lines: UsageLine) -> MeterLines:
    return MeterLines(name.lower().replace(" ", "_"), name, unit, lines)


def days(*amounts: Money, first: date = date(2026, 5, 1)) -> tuple[DayCost, ...]:
    return tuple(DayCost(first + timedelta(days=at), amount) for at, amount in enumerate(amounts))


def small() -> InvoiceDocument:
    """The four meters of docs/rating.md."""
    cents = (0, 0, 1, 1, 2, 0, 0, 1, 3, 2, 2, 1, 1, 0, 0, 1, 1, 2, 1, 1, 0, 1, 1, 2, 1, 0, 0, 1, 1)
    plain = document(
        meters=(
            one_meter(
                "CPU time",
                "cpu_seconds",
                usage_line("3600", "0.000012", money("0.04"), name="CPU time"),
            ),
            one_meter(
                "Memory",
                "memory_gb_seconds",
                usage_line("7200", "0.000004", money("0.03"), name="Memory"),
            ),
            one_meter(
                "Network egress",
                "network_egress_gb",
                usage_line("10", "0.02", money("0.20"), name="Network egress"),
            ),
            one_meter(
                "Storage",
                "storage_gb_hours",
                usage_line("100.5", "0.0001", money("0.01"), name="Storage"),
            ),
        ),
        tax=Tax(Decimal("0.19")),
    )
    return replace(plain, days=days(*(Money.of_minor_units(cent, "USD") for cent in cents)))


def rich() -> InvoiceDocument:
    """A month on Team with everything that an invoice can have."""
    may = MAY_IN_BERLIN
    change = datetime(2026, 5, 17, 12, 15, tzinfo=UTC)
    before, after = Period(may.start, change), Period(change, may.end)
    tiers = (
        PricePart(PartKind.FREE, None, "50000", "0"),
        PricePart(PartKind.FLAT_FEE, 1, "1", "10"),
        PricePart(PartKind.UNITS, 1, "1000000", "0.000012"),
        PricePart(PartKind.UNITS, 2, "24950000.25", "0.00001"),
        PricePart(PartKind.MINIMUM, None, "1", "7.5"),
    )
    shown = document(
        fees=(
            FeeLine(
                FeeLineKind.FEE,
                "Team plan",
                may,
                money("299.00"),
                "1 period at 299.00",
            ),
            FeeLine(
                FeeLineKind.UNUSED_FEE,
                "Professional plan, unused part of the year",
                after,
                money("-1054.55"),
                "1,188.00 × 324 ÷ 365 days",
            ),
        ),
        meters=(
            one_meter(
                "CPU time",
                "cpu_seconds",
                usage_line(
                    "36000000.123456789",
                    "0.000012",
                    money("432.00"),
                    name="CPU time",
                    period=before,
                    discount=money("21.60"),
                ),
                usage_line(
                    "26000000.25",
                    None,
                    money("271.50"),
                    name="CPU time",
                    period=after,
                    discount=money("13.58"),
                    parts=tiers,
                ),
            ),
            one_meter(
                "Memory",
                "memory_gb_seconds",
                usage_line(
                    "722000000",
                    "0.000004",
                    money("2888.00"),
                    name="Memory",
                    period=may,
                    discount=money("144.40"),
                ),
            ),
            one_meter(
                "Storage",
                "storage_gb_hours",
                usage_line(
                    "10000.333333333333",
                    "0.0001",
                    money("1.00"),
                    name="Storage",
                    period=may,
                    discount=money("0.05"),
                ),
            ),
        ),
        discounts=(
            Discount("Volume 500", money("3592.50"), Decimal(5), money("0"), money("179.63")),
            Discount("By the year", money("3592.50"), Decimal("2.5"), money("5"), money("94.81")),
        ),
        credits_used=(
            CreditUsed("Monthly credit, May 2026", money("300.00")),
            CreditUsed("Welcome, until 30 June 2026", money("50.00")),
        ),
        adjustments=(
            Adjustment("Interruption of 12 May", money("-120.00")),
            Adjustment("Late usage of April 2026", money("3.21")),
        ),
        prepaid=(CreditUsed("Top-up of 4 March 2026", money("600.00")),),
        tax=Tax(Decimal("0.19")),
    )
    amounts = tuple(Money.of_minor_units(7000 + 137 * (at * at % 83), "USD") for at in range(31))
    return replace(
        shown,
        zone=ZoneInfo("Europe/Berlin"),
        period=may,
        days=days(*amounts),
        sandboxes=sandboxes(8),
        notes=("Reverse charge does not apply.", "Thank you for building with SoulBox."),
    )


def sandboxes(count: int) -> tuple[SandboxCost, ...]:
    return tuple(
        SandboxCost(
            f"sandbox-{at:05}-{at * 2654435761 % 2**32:08x}", money(f"{at % 400}.{at % 100:02}")
        )
        for at in range(count)
    )


def with_annex(count: int) -> InvoiceDocument:
    return replace(rich(), sandboxes=sandboxes(count))


def long() -> InvoiceDocument:
    """So many spans that the table goes over pages."""
    spans = [
        Period(MAY.start + timedelta(hours=6 * at), MAY.start + timedelta(hours=6 * at + 6))
        for at in range(120)
    ]
    lines = [
        usage_line(
            f"{3600 * at}.{at}",
            "0.000012",
            money(f"{at}.{at % 100:02}"),
            name="CPU time",
            period=span,
        )
        for at, span in enumerate(spans)
    ]
    return document(
        meters=(one_meter("CPU time", "cpu_seconds", *lines),),
        tax=Tax(Decimal("0.07"), is_inclusive=True),
    )


WORLD = (
    "Łódź Żółć sp. z o.o.",
    "Ελληνική Εταιρεία",
    "ООО «Ромашка»",
    "شركة المثال للتقنية 2026",
    "חברה לדוגמה בע״מ (תל אביב)",
    "उदाहरण प्राइवेट लिमिटेड",
    "サンプル株式会社 東京都",
    "例子有限公司",
    "예시 주식회사",
    "Rocket 🚀 & Family 👨‍👩‍👧 🇩🇪",
)


def worldwide() -> InvoiceDocument:
    lines = [
        usage_line("12.5", "1", Money(Decimal(1250 + at), "JPY"), name=name)
        for at, name in enumerate(WORLD)
    ]
    shown = document(
        currency="JPY",
        meters=tuple(one_meter(line.description, "units", line) for line in lines),
        tax=Tax(Decimal("0.1"), is_inclusive=True),
        credits_used=(CreditUsed("رصيد ترحيبي", Money(Decimal(1000), "JPY")),),
    )
    return replace(
        shown,
        buyer=Party(
            "شركة المثال للتقنية",
            ("شارع الملك فهد 12", "الرياض 11564", "サンプル株式会社"),
            (TaxId("الرقم الضريبي", "300123456700003"),),
        ),
        days=days(*(Money(Decimal(at), "JPY") for at in range(1, 32))),
        notes=WORLD,
    )
