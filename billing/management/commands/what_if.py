from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing.money import Money
from billing.rating import decimal_text
from billing.what_if import (
    MOST_MONTHS,
    Comparison,
    LeftUnpriced,
    Question,
    Total,
    WhatIfRefusedError,
    accounts_asked,
    add_up,
    ask,
    compare,
    find_worst,
)
from metering.command_line import (
    WrongArgumentError,
    add_json,
    number,
    progress,
    row_id,
    write_json,
)
from metering.meters import UNITS

WIDTH = 160


class Command(BaseCommand):
    """Say what closed periods would have cost under another plan or other prices."""

    help = "Compare what accounts paid with what they would pay on a plan or at a book's prices."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to compare with, for whom, of how many periods, and the form of the answer."""
        parser.add_argument("--plan", help="code of a plan: its fee, monthly credits and prices")
        parser.add_argument("--price-book", help="code of a price book: its prices")
        parser.add_argument(
            "--months",
            type=number(1, MOST_MONTHS),
            required=True,
            help=f"how many closed billing periods, the last ones, 1 to {MOST_MONTHS}",
        )
        parser.add_argument("--account", type=row_id, help="only this account")
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the comparison. Raises CommandError naming the argument that is no good."""
        try:
            question = ask(
                months=options["months"],
                plan_code=options["plan"],
                price_book_code=options["price_book"],
                account_id=options["account"],
            )
        except WhatIfRefusedError as error:
            raise WrongArgumentError(str(error)) from None
        comparisons = _compare(question)
        if options["json"]:
            write_json(self.stdout, _answer(question, comparisons))
            return
        if not comparisons:
            self.stdout.write("No account has a closed period with usage in that time.")
            return
        # Django's wrapper writes as a file does, and is typed as none.
        console = Console(file=self.stdout, width=WIDTH)  # type: ignore[arg-type]
        console.print(_table_of(comparisons))
        if totals := add_up(comparisons):
            console.print(_table_of_totals(totals))
        if worst := find_worst(comparisons):
            console.print(_table_of(worst, title="Who would pay most more"))


def _compare(question: Question) -> list[Comparison]:
    accounts = accounts_asked(question)
    found = []
    with progress("accounts", accounts.count()) as advance:
        for account in accounts.iterator():
            if one := compare(account, question):
                found.append(one)
            advance(1)
    return found


def _answer(question: Question, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "months": question.months,
        "plan": question.plan.code if question.plan else None,
        "price_book": question.price_book.code if question.price_book else None,
        "accounts": [_fields(one) for one in comparisons],
        "totals": [_total_fields(total) for total in add_up(comparisons)],
        "worst": [
            {
                "account": str(one.account_id),
                "name": one.name,
                "currency": one.as_it_is.cost.currency,
                "difference": _text(one.difference),
            }
            for one in find_worst(comparisons)
        ],
    }


def _fields(one: Comparison) -> dict[str, Any]:
    code, cost = one.cheapest or (None, None)
    return {
        "account": str(one.account_id),
        "name": one.name,
        "currency": one.as_it_is.cost.currency,
        "periods": [
            {"start": period.start.isoformat(), "end": period.end.isoformat()}
            for period in one.periods
        ],
        "periods_left_out": one.left_out,
        "as_it_is": one.as_it_is.cost.text,
        "other": one.other.cost.text if one.other else None,
        "difference": _text(one.difference),
        "cheapest_plan": code,
        "cheapest": _text(cost),
        "plans": {plan: side.cost.text for plan, side in one.plans.items()},
        "unpriced_as_it_is": _unpriced_fields(one.as_it_is.unpriced),
        "unpriced": _unpriced_fields(one.other.unpriced if one.other else ()),
    }


def _total_fields(total: Total) -> dict[str, Any]:
    return {
        "currency": total.currency,
        "accounts": total.accounts,
        "as_it_is": total.as_it_is.text,
        "other": total.other.text,
        "difference": total.difference.text,
    }


def _unpriced_fields(unpriced: Iterable[LeftUnpriced]) -> list[dict[str, str]]:
    return [
        {
            "meter": left.meter,
            "reason": left.reason,
            "quantity": decimal_text(UNITS[left.meter].shown_quantity(left.quantity)),
            "unit": UNITS[left.meter].shown,
        }
        for left in unpriced
    ]


def _text(money: Money | None) -> str | None:
    return None if money is None else money.text


def _table_of(comparisons: Iterable[Comparison], *, title: str | None = None) -> Table:
    table = Table(title=title)
    for name in ("account", "periods", "currency"):
        table.add_column(name)
    for name in ("as it is", "other", "difference", "cheapest plan", "its cost"):
        table.add_column(name, justify="right")
    table.add_column("not in the cost")
    for one in comparisons:
        code, cost = one.cheapest or ("", None)
        table.add_row(
            f"{escape(one.name)}\n{one.account_id}",
            f"{len(one.periods)}" + (f", {one.left_out} not kept" if one.left_out else ""),
            one.as_it_is.cost.currency,
            one.as_it_is.cost.text,
            one.other.cost.text if one.other else "",
            _signed(one.difference),
            code,
            _text(cost) or "",
            _named(one),
        )
    return table


def _table_of_totals(totals: Iterable[Total]) -> Table:
    table = Table(title="Together")
    for name in ("currency", "accounts", "as it is", "other", "difference"):
        table.add_column(name, justify="right")
    for total in totals:
        table.add_row(
            total.currency,
            f"{total.accounts:,}",
            total.as_it_is.text,
            total.other.text,
            _signed(total.difference),
        )
    return table


def _signed(money: Money | None) -> str:
    if money is None:
        return ""
    return f"+{money.text}" if money.amount > 0 else money.text


def _named(one: Comparison) -> str:
    sides = (("as it is", one.as_it_is), ("other", one.other))
    return "\n".join(
        f"{side}: {left.meter}, {left.reason}"
        for side, outcome in sides
        if outcome
        for left in outcome.unpriced
    )
