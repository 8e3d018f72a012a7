from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from soulbox.demo import Statement, run_month
from soulbox.demo_payday import collect_month

NAME_WIDTH = 26


class Command(BaseCommand):
    """Bill the last month of a simulated fleet, collect it, and check every figure."""

    help = (
        "Run a simulated month through metering, rating, invoicing and collecting; "
        "fail on any difference."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Print a statement for each account. Raises CommandError when a figure is off."""
        if settings.EMBEDDED is None:
            raise CommandError(
                "The demo bills made-up accounts: it runs on embedded services only."
            )
        call_command("migrate", verbosity=0)
        statements = run_month(datetime.now(UTC), say=self.stdout.write)
        for statement in statements:
            self._print(statement)
        figures = [figure for statement in statements for figure in statement.figures]
        figures += collect_month(statements, say=self.stdout.write)
        wrong = [figure for figure in figures if not figure.is_right]
        for figure in wrong:
            self.stdout.write(
                f"  WRONG {figure.name}: found {figure.found}, expected {figure.expected}"
            )
        if wrong:
            raise CommandError(f"{len(wrong)} of {len(figures)} figures differ from what they are.")
        self.stdout.write(f"All {len(figures)} figures are what they have to be.")

    def _print(self, statement: Statement) -> None:
        customer, invoice = statement.customer, statement.invoice
        self.stdout.write(
            f"\n{customer.name}: invoice {invoice.number}, {invoice.status}, "
            f"{customer.month.start:%Y-%m-%d %H:%M} to {customer.month.end:%Y-%m-%d %H:%M} UTC "
            f"({customer.zone})"
        )
        for line in invoice.lines.order_by("position"):
            quantity = f"{line.quantity / line.unit_size:,.4f} {line.unit}"
            self.stdout.write(
                f"  {line.description:<{NAME_WIDTH}}{quantity:>41}{line.amount:>12.2f}"
            )
        for name, amount in (("credits", -invoice.credits_used), ("total", invoice.total_amount)):
            label = f"{name}, {invoice.currency}"
            self.stdout.write(f"  {label:<{NAME_WIDTH}}{'':<41}{amount:>12.2f}")
