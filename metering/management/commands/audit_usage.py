from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering.audit import EXAMPLES, Audit, Difference, accounts_audited, audit_usage
from metering.command_line import WrongArgumentError, add_json, progress, row_id, write_json
from metering.period import Period


class Command(BaseCommand):
    """Prove that no usage is lost or made up; exit with 1 where it does not add up."""

    help = "Add usage up again from readings, windows, late usage, gaps and day summaries."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whose usage to add up, of which time, and the form of the answer."""
        parser.add_argument(
            "--account", action="append", type=row_id, help="only this account; may be repeated"
        )
        parser.add_argument(
            "--period",
            type=read_period,
            help="only lives and days in it, UTC: 2026-11, or 2026-11-01..2026-11-08, end outside",
        )
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print what was compared. Raises CommandError, after that, where something differs."""
        asked = options["account"]
        known = accounts_audited(asked)
        if unknown := set(asked or ()) - set(known):
            named = ", ".join(sorted(map(str, unknown)))
            raise WrongArgumentError(f"--account: {named} is not registered. Look at its id.")
        with progress("accounts", len(known)) as watch:
            audit = audit_usage(
                now=datetime.now(UTC), accounts=known, period=options["period"], watch=watch
            )
        if options["json"]:
            checks = [asdict(check) for check in audit.checks]
            write_json(self.stdout, {"checks": checks, "lives_left_out": audit.lives_left_out})
        else:
            self._print(audit)
        if audit.failing:
            raise CommandError("Usage does not add up: " + ", ".join(audit.failing) + ".")

    def _print(self, audit: Audit) -> None:
        self.stdout.write(f"{'check':<24}{'compared':>12}{'differences':>13}")
        for check in audit.checks:
            self.stdout.write(f"{check.name:<24}{check.compared:>12}{check.differences:>13}")
        if audit.lives_left_out:
            self.stdout.write(
                f"{audit.lives_left_out} lives left out: their first records may be dropped."
            )
        for check in audit.checks:
            if check.differences:
                self.stdout.write(f"\n{check.name}, the first {EXAMPLES} at most:")
            for difference in check.examples:
                self.stdout.write(_line(difference))


def _line(difference: Difference) -> str:
    where = [f"account {difference.account}", f"sandbox {difference.sandbox}"]
    if difference.life is not None:
        where.append(f"life {difference.life}")
    if difference.interface:
        where.append(f"interface {difference.interface}")
    if difference.at:
        where.append(f"at {difference.at}")
    return (
        f"  {', '.join(where)}: {difference.figure} is {difference.found}, "
        f"should be {difference.expected}"
    )


def read_period(text: str) -> Period:
    """Return the period that a month or `START..END` names. Raises ArgumentTypeError."""
    try:
        if ".." in text:
            first, _, last = text.partition("..")
            return Period(_midnight(date.fromisoformat(first)), _midnight(date.fromisoformat(last)))
        start = date.fromisoformat(f"{text}-01")
        # Every month has ended 31 days after it began, and the next has not by then.
        return Period(_midnight(start), _midnight((start + timedelta(days=31)).replace(day=1)))
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text!r} is no month like 2026-11 and no span like 2026-11-01..2026-11-08 ({error})"
        ) from None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
