from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from metering.meters import UNITS, Meter
from metering.spikes import Spike, find_spikes


class Command(BaseCommand):
    """Say which accounts used unusually much on a day."""

    help = "List the accounts that used far more on a day than in their own past weeks."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the day, the meter, and the form of the answer."""
        parser.add_argument("--day", type=date.fromisoformat, help="YYYY-MM-DD; else yesterday")
        parser.add_argument("--meter", type=Meter, choices=list(Meter), help="only this meter")
        parser.add_argument("--json", action="store_true", help="print JSON, a list of spikes")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the spikes, the most severe first."""
        day = options["day"] or datetime.now(UTC).date() - timedelta(days=1)
        spikes = find_spikes(day, meter=options["meter"])
        if options["json"]:
            self.stdout.write(json.dumps([_fields(spike) for spike in spikes], indent=2))
            return
        if not spikes:
            self.stdout.write(f"No account stands out on {day}.")
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
