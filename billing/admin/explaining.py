"""An explanation as the tables of one page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from django.utils.html import format_html

from billing.admin.asking import MISSING, price_text
from billing.explain import Check, ExplainedLife, Explanation
from billing.rating import decimal_text
from metering.life_windows import LifeWindow

Url: TypeAlias = Callable[[Sequence[int]], str]


def explanation_tables(told: Explanation, windows_url: Url) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables that have rows, each with its title."""
    tables = [
        (
            "Parts of the exact cost",
            _table(("part", "quantity", "unit price", "cost"), _parts(told)),
        ),
        (
            f"By sandbox, in {told.base_unit}",
            _table(
                (
                    "sandbox",
                    "quantity",
                    "exact cost",
                    "opening",
                    "closing",
                    "steps",
                    "windows",
                    "samples",
                    "measured",
                ),
                _sandboxes(told, windows_url),
            ),
        ),
        (
            f"Late usage, in {told.base_unit}",
            _table(
                ("sandbox", "window", "quantity"),
                (
                    (late.sandbox_id, _time(late.window_start), f"{late.quantity:,}")
                    for late in told.late_usage
                ),
            ),
        ),
        (
            "Its share of the discounts, in order",
            _table(
                ("discount", "percent", "fixed", "of", "takes off", "of this line"),
                _discounts(told),
            ),
        ),
        (
            "Credit that paid the invoice",
            _table(
                ("credit", "kind", "amount"),
                ((credit.name, credit.kind, credit.amount) for credit in told.credits),
            ),
        ),
        ("Sums", _table(("sum", "parts", "whole", ""), map(_check, told.checks))),
    ]
    return [(title, table) for title, table in tables if table["rows"]]


def windows_table(windows: Iterable[LifeWindow]) -> dict[str, Any]:
    """Return the table of a life's windows."""
    return _table(
        ("window", "interface", "quantity", "opening", "closing", "samples", "measured"),
        (
            (
                _time(window.window_start),
                window.interface or MISSING,
                f"{window.quantity:,}",
                _units(window.opening),
                _units(window.closing),
                f"{window.sample_count:,}",
                _measured(window.applied_ms, window.measured_ms),
            )
            for window in windows
        ),
    )


def exact_text(exact: Fraction) -> str:
    """Return an exact number as a decimal, with the fraction where the decimal does not end."""
    text = decimal_text(exact)
    return text if Fraction(text) == exact else f"{text}… = {exact}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    return {"headers": headers, "rows": [list(row) for row in rows]}


def _parts(told: Explanation) -> Iterator[Sequence[Any]]:
    for part in told.parts:
        name = part.kind.replace("_", " ")
        yield (
            f"{name}, tier {part.tier}" if part.tier else name,
            exact_text(part.quantity),
            price_text(part.unit_price),
            exact_text(part.cost),
        )
    if told.exact_cost is not None and told.rounding is not None:
        yield ("exactly", "", "", exact_text(told.exact_cost))
        yield ("rounding", "", "", exact_text(told.rounding))
        yield ("amount", "", "", told.amount)


def _sandboxes(told: Explanation, windows_url: Url) -> Iterator[Sequence[Any]]:
    if told.sandboxes is None:
        return
    for sandbox in told.sandboxes.page:
        yield (
            sandbox.sandbox_id,
            f"{sandbox.quantity:,}",
            exact_text(sandbox.cost),
            *([""] * 6),
        )
        for explained in sandbox.lives:
            yield _life(told, explained, windows_url)
        if more := sandbox.life_count - len(sandbox.lives):
            yield (f"{more} more lives", *([""] * 8))
    others = told.sandboxes.others
    if others.count:
        row = f"{others.count} on other pages", f"{others.quantity:,}", exact_text(others.cost)
        yield (*row, *([""] * 6))
    if told.sandboxes.without_usage:
        cost = exact_text(told.sandboxes.without_usage)
        yield ("due without usage", "", cost, *([""] * 6))


def _life(told: Explanation, explained: ExplainedLife, windows_url: Url) -> Sequence[Any]:
    life = explained.life
    url = windows_url((told.invoice_id, told.position, life.life_id))
    return (
        format_html(
            '<a class="ml-4 text-primary-600 whitespace-nowrap" href="{}">since {}</a>',
            url,
            _time(life.started_at),
        ),
        f"{life.quantity:,}",
        "",
        _units(life.opening),
        _units(life.closing),
        _units(explained.steps),
        f"{life.record_count:,}",
        f"{life.sample_count:,}",
        _measured(life.applied_ms, life.measured_ms),
    )


def _discounts(told: Explanation) -> Iterator[Sequence[Any]]:
    for share in told.discounts:
        yield (
            share.name,
            f"{price_text(share.percent)} %",
            share.fixed_amount,
            share.base,
            share.amount,
            share.share,
        )


def _check(check: Check) -> Sequence[Any]:
    verdict = (
        "equal"
        if check.holds
        else format_html('<span class="font-semibold text-red-600">{}</span>', "not equal")
    )
    return (check.name, exact_text(check.parts), exact_text(check.whole), verdict)


def _units(quantity: int | None) -> str:
    return MISSING if quantity is None else f"{quantity:,}"


def _measured(applied_ms: int, measured_ms: int) -> str:
    return (
        f"{decimal_text(Fraction(measured_ms * 100, applied_ms))[:6]} %" if applied_ms else MISSING
    )


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
