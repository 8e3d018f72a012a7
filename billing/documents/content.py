"""What the template is told: every text ready to be shown, so that it decides only where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final, TypeAlias

from billing.charges import PartKind
from billing.documents.document import (
    Adjustment,
    DocumentKind,
    FeeLine,
    InvoiceDocument,
    MeterLines,
    Party,
    PricePart,
    SandboxCost,
    TopUp,
    UsageLine,
)
from billing.documents.text import one_line
from billing.lifecycle import InvoiceStatus
from billing.money import Money
from metering.period import Period

Content: TypeAlias = "str | int | bool | Sequence[Content] | Mapping[str, Content] | None"

MOST_CHARACTERS: Final = 10_000
"""A text is cut here; the JSON has all of it."""
CHARACTERS_ON_TOP: Final = 40
"""A text in the line at the top of later pages is cut here: it has one line, and no more."""
SANDBOXES_THAT_FIT: Final = 12
"""More sandboxes than this have an annex of their own."""
MOST_SANDBOXES: Final = 10_000
"""The rest of an annex is one row; the JSON has them all."""
ROWS_KEPT_TOGETHER: Final = 20
CHARACTERS_KEPT_TOGETHER: Final = 100
"""The sums stay on one page if they have no more rows, and no name is longer."""
BAR_HEIGHT: Final = 1000
"""The height of the highest bar, in whole parts."""

_MINUS: Final = "\N{MINUS SIGN}"
_TITLES: Final = {
    DocumentKind.USAGE: "Invoice",
    DocumentKind.FINAL: "Final invoice",
    DocumentKind.SUBSCRIPTION: "Invoice",
    DocumentKind.TOP_UP: "Invoice for prepaid credit",
    DocumentKind.CREDIT_NOTE: "Credit note",
}
_MARKS: Final = {InvoiceStatus.DRAFT: "DRAFT", InvoiceStatus.VOID: "VOID"}
_DUE_NAMES: Final = {InvoiceStatus.PAID: "Amount paid", InvoiceStatus.VOID: "Amount"}
_CREDITED: Final = "Total credited"
_PARTS: Final = {
    PartKind.FREE: "Free",
    PartKind.UNITS: "Units",
    PartKind.FLAT_FEE: "Flat fee",
    PartKind.PACKAGES: "Packages",
    PartKind.PERCENT: "Percent",
    PartKind.EVENTS: "Sandboxes started",
    PartKind.MAXIMUM: "At most",
    PartKind.MINIMUM: "At least",
}
# Not by strftime: its names are those of the process's locale.
_MONTHS: Final = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)
_OF_USAGE: Final = (DocumentKind.USAGE, DocumentKind.FINAL)
_LIMITS: Final = (PartKind.MAXIMUM, PartKind.MINIMUM)


def content_of(document: InvoiceDocument) -> dict[str, Content]:
    """Return the document as the template wants it."""
    number = document.number or "Draft"
    title = _TITLES[document.kind]
    is_note = document.kind is DocumentKind.CREDIT_NOTE
    sums = _sums_of_note(document) if is_note else _sums(document)
    prepaid = [_row(used.name, -used.amount, "Prepaid credit used") for used in document.prepaid]
    return {
        "title": title,
        "number": _text(number),
        "top": _text(f"{title} {number}", CHARACTERS_ON_TOP),
        "seller_top": _text(document.seller.name, CHARACTERS_ON_TOP),
        "currency": document.currency,
        "mark": _MARKS.get(document.status),
        "facts": [{"name": name, "value": value} for name, value in _facts(document)],
        "seller": _party(document.seller),
        "buyer": _party(document.buyer),
        "due": _amount(document.totals.amount_due),
        "due_name": _CREDITED if is_note else _DUE_NAMES.get(document.status, "Amount due"),
        "due_note": _due_note(document),
        "has_discounts": any(line.discount for line in document.usage_lines),
        "fees": [
            *(_fee(fee, document) for fee in document.fees),
            *(_top_up(entry) for entry in document.top_ups),
            *(_credited(entry, document) for entry in document.adjustments if is_note),
        ],
        "meters": [_meter(group, document) for group in document.meters],
        "quantity_decimals": max((_decimals(text) for text in _quantities(document)), default=0),
        "price_decimals": max((_decimals(text) for text in _prices(document)), default=0),
        "days": _days(document),
        "sums": sums,
        "sums_fit": len(sums + prepaid) <= ROWS_KEPT_TOGETHER
        and all(len(row["name"]) <= CHARACTERS_KEPT_TOGETHER for row in sums + prepaid),
        "total": _amount(document.totals.total_amount),
        "total_name": _CREDITED if is_note else "Total",
        # The last row of the sums: of a credit note that is the total.
        "last_name": None if is_note else "Amount due",
        "tax_inside": _tax(document) if document.tax.is_inclusive else None,
        "prepaid": prepaid,
        **_sandboxes(document.sandboxes, document.currency),
        "payment_terms": _text(document.payment_terms),
        "notes": [_text(note) for note in document.notes],
        "zone": document.zone.key,
    }


def _text(text: str, most: int = MOST_CHARACTERS) -> str:
    shown = one_line(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _figure(text: str) -> str:
    """Return an exact decimal with a comma between thousands and a minus as long as a plus."""
    whole, point, decimals = text.removeprefix("-").partition(".")
    sign = _MINUS if text.startswith("-") and text.strip("-0.") else ""
    return f"{sign}{int(whole):,}{point}{decimals}"


def _amount(money: Money) -> str:
    return _figure(money.text)


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _percent(percent: Decimal) -> str:
    text = f"{percent:f}"
    return f"{_figure(text.rstrip('0').rstrip('.') if '.' in text else text)} %"


def _day(day: date) -> str:
    # With spaces at which no line ends.
    return f"{day.day}\N{NO-BREAK SPACE}{_MONTHS[day.month - 1]}\N{NO-BREAK SPACE}{day.year}"


def _span(period: Period, document: InvoiceDocument) -> str:
    """Return the span in local time: whole days with the last one in it, else with times."""
    start, end = (edge.astimezone(document.zone) for edge in (period.start, period.end))
    if start.time() == end.time() == time():
        first, last = start.date(), end.date() - timedelta(days=1)
        if first == last:
            return _day(first)
        if (first.year, first.month) == (last.year, last.month):
            return f"{first.day}–{_day(last)}"
        return f"{_day(first)} – {_day(last)}"
    if start.date() == end.date() and start.utcoffset() == end.utcoffset():
        return f"{_moment(start)}–{_clock(end)}"
    return f"{_moment(start)} – {_moment(end)}"


def _moment(local: datetime) -> str:
    return f"{_day(local.date())},\N{NO-BREAK SPACE}{_clock(local)}"


def _clock(local: datetime) -> str:
    return f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"


def _facts(document: InvoiceDocument) -> list[tuple[str, str]]:
    facts = [
        ("Number", _text(document.number or "Draft")),
        ("Issued", _day(document.issued_on) if document.issued_on else ""),
        ("Period", _span(document.period, document)),
        ("Due", _day(document.due_on) if document.due_on else ""),
        ("Currency", document.currency),
    ]
    if credited := document.credited_invoice:
        # Below its own number and date.
        facts[2:2] = [
            ("Corrects invoice", _text(credited.number)),
            ("Invoice issued", _day(credited.issued_on) if credited.issued_on else ""),
        ]
    return [(name, value) for name, value in facts if value]


def _due_note(document: InvoiceDocument) -> str:
    if document.kind is DocumentKind.CREDIT_NOTE:
        credited = document.credited_invoice
        return _text(f"Of invoice {credited.number}") if credited else ""
    match document.status:
        case InvoiceStatus.DRAFT:
            return "The figures of a draft may still change."
        case InvoiceStatus.VOID:
            return "Void: nothing is due."
        case InvoiceStatus.PAID:
            return f"Paid on {_day(document.paid_on)}." if document.paid_on else "Paid."
    if not document.totals.amount_due:
        return "Nothing is left to pay."
    return f"Due by {_day(document.due_on)}" if document.due_on else ""


def _party(party: Party) -> Content:
    tax_ids = [f"{tax_id.name} {tax_id.number}" for tax_id in party.tax_ids]
    return {
        "name": _text(party.name),
        "address": [_text(line) for line in party.address],
        "tax_ids": [_text(tax_id) for tax_id in tax_ids],
    }


def _fee(fee: FeeLine, document: InvoiceDocument) -> Content:
    return {
        "name": _text(fee.description),
        "basis": _text(fee.basis),
        "span": _span_if_other(fee.period, document),
        "amount": _amount(fee.amount),
    }


def _credited(entry: Adjustment, document: InvoiceDocument) -> Content:
    return {
        "name": _text(entry.description),
        "basis": "",
        "span": _span_if_other(entry.period, document) if entry.period else "",
        "amount": _amount(entry.amount),
    }


def _top_up(entry: TopUp) -> Content:
    basis = "Prepaid credit. It is taxed when it is spent."
    return {
        "name": _text(entry.description),
        "basis": basis,
        "span": "",
        "amount": _amount(entry.amount),
    }


def _meter(group: MeterLines, document: InvoiceDocument) -> Content:
    return {
        "name": _text(group.name),
        "unit": _text(group.unit),
        "amount": _amount(group.amount),
        "lines": [_line(line, group, document) for line in group.lines],
    }


def _line(line: UsageLine, group: MeterLines, document: InvoiceDocument) -> Content:
    is_named = line.description != group.name
    return {
        "name": _text(line.description) if is_named else "",
        # The lines of a group differ in their spans, so there each says its own.
        "span": _span(line.period, document)
        if len(group.lines) > 1
        else _span_if_other(line.period, document),
        "quantity": _figure(line.quantity),
        "quantity_decimals": _decimals(line.quantity),
        "price": None if line.unit_price is None else _figure(line.unit_price),
        "price_decimals": _decimals(line.unit_price or ""),
        "discount": _amount(-line.discount) if line.discount else "",
        "amount": _amount(line.amount),
        "parts": [_part(part) for part in line.parts],
    }


def _part(part: PricePart) -> Content:
    name = _PARTS[part.kind] if part.tier is None else f"{_PARTS[part.kind]}, tier {part.tier}"
    is_limit = part.kind in _LIMITS
    return {
        "name": name,
        "quantity": "" if is_limit else _figure(part.quantity),
        "quantity_decimals": 0 if is_limit else _decimals(part.quantity),
        "price": _figure(part.unit_price),
        "price_decimals": _decimals(part.unit_price),
    }


def _span_if_other(period: Period, document: InvoiceDocument) -> str:
    return "" if period == document.period else _span(period, document)


def _quantities(document: InvoiceDocument) -> list[str]:
    lines = document.usage_lines
    parts = [part for line in lines for part in line.parts if part.kind not in _LIMITS]
    return [line.quantity for line in lines] + [part.quantity for part in parts]


def _prices(document: InvoiceDocument) -> list[str]:
    lines = document.usage_lines
    parts = [part.unit_price for line in lines for part in line.parts]
    return [line.unit_price or "" for line in lines] + parts


def _days(document: InvoiceDocument) -> Content:
    """Return the bars' heights in whole parts of the highest, or None where there is no usage."""
    highest = max(document.days, key=lambda entry: entry.amount.amount, default=None)
    if highest is None or not highest.amount:
        return None
    most = highest.amount.amount
    return {
        "bars": [int(entry.amount.amount * BAR_HEIGHT // most) for entry in document.days],
        "names": [f"{entry.day.day} {_MONTHS[entry.day.month - 1]}" for entry in document.days],
        "highest": _amount(highest.amount),
        "highest_day": _day(highest.day),
    }


def _sums(document: InvoiceDocument) -> list[dict[str, str]]:
    """Return the rows from the fees down to the total, each with what it rests on."""
    t = document.totals
    sums: list[dict[str, str]] = []
    if document.fees:
        sums.append(_row("Subscription fees", t.subscription_fee))
    if document.meters or document.kind in _OF_USAGE:
        sums.append(_row("Usage", t.usage_fee))
    for discount in document.discounts:
        base = f"{_amount(discount.base)} {document.currency}"
        takes = [f"{_percent(discount.percent)} of {base}"] if discount.percent else []
        if discount.fixed_amount:
            takes.append(f"{_amount(discount.fixed_amount)} {document.currency}")
        sums.append(_row(discount.name, -discount.amount, "Discount: " + " + ".join(takes)))
    sums += [_row(credit.name, -credit.amount, "Credit used") for credit in document.credits]
    sums += [_adjustment(entry, document) for entry in document.adjustments]
    if not document.tax.is_inclusive:
        if len(sums) > 1:
            sums.append(_row("Before tax", document.taxable))
        if document.kind is not DocumentKind.TOP_UP:
            sums.append(_tax(document))
    if document.top_ups:
        sums.append(_row("Prepaid credit", document.top_up))
    if t.credited:
        sums.append(_row("Carried over as prepaid credit", t.credited))
    return sums


def _sums_of_note(document: InvoiceDocument) -> list[dict[str, str]]:
    """Return the rows from the credited lines, which stand above, down to the total."""
    if document.tax.is_inclusive:
        return []
    return [_row("Before tax", document.taxable), _tax(document)]


def _adjustment(entry: Adjustment, document: InvoiceDocument) -> dict[str, str]:
    note = f"Adjustment of {_span(entry.period, document)}" if entry.period else "Adjustment"
    return _row(entry.description, entry.amount, note)


def _tax(document: InvoiceDocument) -> dict[str, str]:
    rate = _percent(document.tax.rate * 100)
    return _row(f"{document.tax_name} {rate}", document.totals.tax)


def _row(name: str, amount: Money, note: str = "") -> dict[str, str]:
    return {"name": _text(name), "note": note, "amount": _amount(amount)}


def _sandboxes(sandboxes: Sequence[SandboxCost], currency: str) -> dict[str, Content]:
    shown = sandboxes[:MOST_SANDBOXES]
    rest = sandboxes[MOST_SANDBOXES:]
    rows: list[Content] = [[_text(entry.sandbox), _amount(entry.amount)] for entry in shown]
    if rest:
        others = Money.total((entry.amount for entry in rest), currency)
        rows.append([f"{len(rest):,} more sandboxes", _amount(others)])
    whole = Money.total((entry.amount for entry in sandboxes), currency)
    return {
        "sandboxes": rows,
        "sandboxes_amount": _amount(whole),
        "sandboxes_count": f"{len(sandboxes):,}",
        "has_annex": len(sandboxes) > SANDBOXES_THAT_FIT,
    }
