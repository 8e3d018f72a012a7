from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing.explain import Explanation
from billing.explain_queries import NoSuchLineError, explain_line
from billing.queries import invoices_named
from billing.rating import decimal_text
from billing.serializers.explanations import ExplanationSerializer
from metering.command_line import WrongArgumentError, add_json, number, write_json_of_many

WIDTH = 160


class Command(BaseCommand):
    """Say where the lines of an invoice come from."""

    help = "Explain an invoice's lines down to the counters, and say whether they add up."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which invoice and line, and the form of the answer."""
        parser.add_argument("invoice", help="number of an invoice, or a draft's id")
        parser.add_argument(
            "--line", type=number(1, 1_000_000), help="only the line at this position"
        )
        parser.add_argument("--after", default="", help="sandboxes after this id")
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the explanations. Raises CommandError, also where something does not add up."""
        wanted = options["invoice"]
        invoice = invoices_named(wanted).first()
        if invoice is None:
            raise WrongArgumentError(f"invoice: there is no invoice {wanted}. Look at its number.")
        positions = (
            list(invoice.lines.values_list("position", flat=True))
            if options["line"] is None
            else [options["line"]]
        )
        mismatched: list[str] = []
        told = _told(invoice.pk, positions, options["after"], mismatched)
        # The first is looked up before anything is written: there may be no such line.
        first = next(told, None)
        lines = chain([] if first is None else [first], told)
        if options["json"]:
            write_json_of_many(
                self.stdout,
                "lines",
                (ExplanationSerializer(line).data for line in lines),
                lambda: {"invoice": invoice.pk, "number": invoice.number, "mismatched": mismatched},
            )
        else:
            # Django's wrapper writes as a file does, and is typed as none.
            console = Console(file=self.stdout, width=WIDTH)  # type: ignore[arg-type]
            for line in lines:
                _print(console, line)
        if mismatched:
            raise CommandError(f"What explains lines {', '.join(mismatched)} does not add up.")


def _told(
    invoice_id: int, positions: list[int], after: str, mismatched: list[str]
) -> Iterator[Explanation]:
    for position in positions:
        try:
            explanation = explain_line(invoice_id, position, after=after)
        except NoSuchLineError as error:
            raise WrongArgumentError(f"--line: {error}") from None
        if not explanation.sums:
            mismatched.append(str(position))
        yield explanation


def _print(console: Console, told: Explanation) -> None:
    console.rule(escape(f"{told.position}. {told.description}: {told.amount}"))
    if told.basis:
        console.print(escape(told.basis))
    if told.price_version:
        since = f"{told.price_version.effective_from:%Y-%m-%d %H:%M}"
        console.print(escape(f"Prices: {told.price_version.book}, version from {since} UTC"))
    for part in told.parts:
        tier = f", tier {part.tier}" if part.tier else ""
        quantity = decimal_text(part.quantity)
        console.print(
            escape(
                f"  {part.kind}{tier}: {quantity} × {part.unit_price.normalize():f} = {part.cost}"
            )
        )
    if told.exact_cost is not None and told.rounding is not None:
        console.print(
            escape(f"  exactly {told.exact_cost}, rounding {told.rounding}: {told.amount}")
        )
    if told.sandboxes and told.sandboxes.page:
        console.print(_table_of(told))
    for share in told.discounts:
        console.print(escape(f"  discount {share.name}: {share.share} of {share.amount}"))
    for check in told.checks:
        verdict = "=" if check.holds else "IS NOT"
        console.print(escape(f"  {check.name}: {check.parts} {verdict} {check.whole}"))
    console.print("sums: true" if told.sums else "sums: FALSE")


def _table_of(told: Explanation) -> Table:
    table = Table(title=f"in {told.base_unit}")
    for name in ("sandbox", "quantity", "opening", "closing", "windows", "samples", "exact cost"):
        table.add_column(name, justify="left" if name == "sandbox" else "right")
    if told.sandboxes is None:
        return table
    for sandbox in told.sandboxes.page:
        table.add_row(
            escape(sandbox.sandbox_id), str(sandbox.quantity), "", "", "", "", str(sandbox.cost)
        )
        for explained in sandbox.lives:
            life = explained.life
            table.add_row(
                f"  life since {life.started_at:%Y-%m-%d %H:%M}",
                str(life.quantity),
                "" if life.opening is None else str(life.opening),
                "" if life.closing is None else str(life.closing),
                str(life.record_count),
                str(life.sample_count),
                "",
            )
    others = told.sandboxes.others
    if others.count:
        table.add_row(
            f"{others.count} others", str(others.quantity), "", "", "", "", str(others.cost)
        )
    return table
