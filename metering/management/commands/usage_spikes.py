from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.command_line import add_json, day, write_json
from metering.meters import UNITS, Meter
from metering.spikes import Spike, find_spikes


class Command(BaseCommand):
    """Say which accounts used unusually much on a day."""

    help = "List the accounts that used far more on a day than in their own past weeks."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the day, the meter, and the form of the answer."""
        parser.add_argument("--day", type=day, help="YYYY-MM-DD; else yesterday")
        parser.add_argument("--meter", type=Meter, choices=list(Meter), help="only this meter")
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the spikes, the most severe first."""
        asked = options["day"] or datetime.now(UTC).date() - timedelta(days=1)
        spikes = find_spikes(asked, meter=options["meter"])
        if options["json"]:
            answer = {"day": asked, "spikes": [_fields(spike) for spike in spikes]}
            write_json(self.stdout, answer)
            return
        if not spikes:
            self.stdout.write(f"No account stands out on {asked}.")
        for spike in spikes:
            fields = _fields(spike)
            self.stdout.write(
                "{day} {account}: {value} {unit}, expected {expected}, "
                "ratio {ratio}, score {score}".format(**fields)
            )


def _fields(spike: Spike) -> dict[str, str | None]:
    # For people to compare, so rounded; the day's summary has the exact figure.
    unit = UNITS[spike.meter]
    ratio = spike.excess.ratio
    return {
        "account": str(spike.account_id),
        "day": str(spike.day),
        "meter": spike.meter,
        "unit": unit.shown,
        "value": f"{float(unit.shown_quantity(spike.excess.value)):.3f}",
        "expected": f"{float(spike.excess.expected / unit.size):.3f}",
        "ratio": None if ratio is None else f"{float(ratio):.1f}",
        "score": f"{float(spike.excess.score):.1f}",
    }
