"""What a monitor reads of usage: by the heaviest accounts, and by all others together."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from metering.meters import UNITS
from metering.usage_counters import told_usage


class Usage(Collector):
    """What was used since it is counted: it never falls. Zeros are told too. One query."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter."""
        counter = CounterMetricFamily(
            "soulbox_usage",
            "What sandboxes used, in the units of prices: "
            + ", ".join(f"{meter} {unit.shown}" for meter, unit in UNITS.items()),
            labels=["resource_type", "account_id"],
        )
        for name, usage in told_usage().items():
            for meter, quantity in usage.items():
                counter.add_metric(
                    [meter.value, name], float(UNITS[meter].shown_quantity(quantity))
                )
        yield counter
