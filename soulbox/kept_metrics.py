"""What a monitor reads of figures that are taken in the background, and how old they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from soulbox.figures import SERIES, kept_figures


class Figures(Collector):
    """The figures as they were last taken. One query."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        kept = kept_figures(now=datetime.now(UTC))
        ages = GaugeMetricFamily(
            "soulbox_figures_age_seconds",
            "Time since figures that take long were taken; a worker does each minute.",
            labels=["figures"],
        )
        for name, age in kept.ages.items():
            ages.add_metric([name], inf if age is None else age.total_seconds())
        yield ages
        for series in SERIES:
            gauge = GaugeMetricFamily(series.name, series.text, labels=series.labels)
            for labels, value in kept.samples[series.name]:
                gauge.add_metric(labels, value)
            yield gauge
