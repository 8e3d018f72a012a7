"""What an account's current period comes to so far, as the tables of one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing.admin.asking import MISSING, link_to, money_text, price_text
from billing.charges import ChargePart, PartKind, PerUnit
from billing.credits import Draw
from billing.facts import period_containing
from billing.fees import FeeKind
from billing.models import Account, CreditGrant
from billing.queries import CurrentUsage, current_usage, preview_period
from billing.rating import RatedLine, decimal_text
from billing.statement import Statement
from billing.totals import InvoiceTotals
from metering.meters import UNITS
from metering.period import Period

_FEES = {
    FeeKind.FEE: "{} plan",
    FeeKind.UNUSED_FEE: "{} plan, unused part of the year",
    FeeKind.TRUE_UP: "{} plan, up to the committed minimum",
}


def preview_context(account: Account, *, now: datetime) -> dict[str, Any]:
    """Return what the preview's template shows."""
    statement = preview_period(account, period_containing(account, now))
    current = current_usage(account.pk, now=now)
    return {
        "period": _period_text(statement.facts.period),
        "as_of": current.as_of,
        "plan": current.plan,
        "tables": [
            ("Fees", _table(("fee", "period", "share", "rate", "amount"), _fees(statement))),
            (
                "Usage",
                _table(
                    ("meter", "period", "quantity", "how it comes about", "amount", "discount"),
                    _usage(statement),
                ),
            ),
            (
                "Usage without a price",
                _table(("meter", "period", "quantity", "reason"), _unpriced(statement)),
            ),
            (
                "Discounts, in order",
                _table(("discount", "of", "percent", "fixed", "amount"), _discounts(statement)),
            ),
            ("Credit used, in order", _table(("credit", "kind", "amount"), _credits(statement))),
        ],
        "totals": _table(("total", "amount"), _totals(statement)),
        "forecast": _table(("if it goes on like this", "amount"), _forecast(current)),
    }


def _table(headers: Sequence[str], rows: Iterator[Sequence[Any]]) -> dict[str, Any]:
    return {"headers": headers, "rows": [list(row) for row in rows]}


def _period_text(period: Period) -> str:
    return f"{period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M}"


def _fees(statement: Statement) -> Iterator[Sequence[Any]]:
    for fee in statement.fees:
        yield (
            _FEES[fee.kind].format(fee.plan),
            _period_text(fee.period),
            f"{fee.seconds:,} of {fee.whole_seconds:,} s",
            fee.rate,
            fee.amount,
        )
    for discount in statement.fee_discounts:
        yield (
            discount.name,
            _period_text(statement.facts.period),
            f"{price_text(discount.percent)} %",
            discount.base,
            -discount.amount,
        )


def _usage(statement: Statement) -> Iterator[Sequence[Any]]:
    for line, discount in zip(statement.rating.lines, statement.line_discounts, strict=True):
        unit = UNITS[line.meter]
        yield (
            line.meter.replace("_", " "),
            _period_text(line.period),
            f"{decimal_text(unit.shown_quantity(line.quantity))} {unit.shown}",
            _parts(line),
            line.amount,
            discount,
        )


def _parts(line: RatedLine) -> SafeString | str:
    if isinstance(line.price.charge, PerUnit) and len(line.parts) == 1:
        return f"× {price_text(line.price.charge.unit_price)}"
    texts = ((_part_text(part),) for part in line.parts)
    return format_html_join("", "<div>{}</div>", texts) or MISSING


def _part_text(part: ChargePart) -> str:
    name = part.kind.replace("_", " ") + (f", tier {part.tier}" if part.tier else "")
    if part.kind in {PartKind.MINIMUM, PartKind.MAXIMUM}:
        return f"{name} {price_text(part.unit_price)}: {decimal_text(part.cost)}"
    if part.kind is PartKind.FREE:
        return f"{name}: {decimal_text(part.quantity)}"
    return (
        f"{name}: {decimal_text(part.quantity)} × {price_text(part.unit_price)}"
        f" = {decimal_text(part.cost)}"
    )


def _unpriced(statement: Statement) -> Iterator[Sequence[Any]]:
    for entry in statement.rating.unpriced:
        unit = UNITS[entry.meter]
        yield (
            entry.meter.replace("_", " "),
            _period_text(entry.period),
            f"{decimal_text(unit.shown_quantity(entry.quantity))} {unit.shown}",
            entry.reason.replace("_", " "),
        )


def _discounts(statement: Statement) -> Iterator[Sequence[Any]]:
    for discount in statement.discounts:
        yield (
            discount.name,
            discount.base,
            f"{price_text(discount.percent)} %",
            money_text(discount.fixed, discount.base.currency),
            discount.amount,
        )


def _credits(statement: Statement) -> Iterator[Sequence[Any]]:
    for drawn in (*statement.credits_used, *statement.prepaid_used):
        yield _credit_name(drawn), drawn.kind, drawn.amount


def _credit_name(drawn: Draw) -> SafeString | str:
    if drawn.credit_id is None:
        return "comes with the plan, not granted yet"
    return link_to(CreditGrant(pk=drawn.credit_id), f"grant {drawn.credit_id}")


def _totals(statement: Statement) -> Iterator[Sequence[Any]]:
    for figure in fields(InvoiceTotals):
        yield figure.name.replace("_", " "), getattr(statement.totals, figure.name)
    yield "usage credit left", statement.remaining_credits
    yield "prepaid credit left", statement.remaining_prepaid


def _forecast(current: CurrentUsage) -> Iterator[Sequence[Any]]:
    ahead = current.forecast
    yield "usage fee", ahead.cost.usage_fee
    yield "discounts", ahead.cost.total_discount
    yield "credits used", ahead.cost.credits_used
    yield "total amount", ahead.total_amount
    yield "usage credit left", ahead.remaining_credits
