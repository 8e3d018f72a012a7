"""What a monitor reads of metering: how new each host's figures are, and how complete all are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from uuid import UUID

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.desk_queries import coverage_since
from metering.host_ages import HostAges, ages_of_hosts
from metering.partitions import PARTITIONED, rows_without_month
from metering.stream import StreamUnavailableError, lengths

MOST_HOSTS = 200
"""So many are told apart, those that are silent for longest; the rest are told of together."""
OTHER = "other"


class Metering(Collector):
    """Whether sandboxes are read, folded and kept where they belong. Zeros are told too."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, as of now."""
        now = datetime.now(UTC)
        yield from _hosts(ages_of_hosts(now=now))
        covered = coverage_since((now - timedelta(days=1)).date())
        ratio = GaugeMetricFamily(
            "soulbox_coverage_ratio",
            "Share of the time that sandboxes ran today and yesterday in which they were measured.",
        )
        if covered.running_ms:
            ratio.add_metric([], covered.measured_ms / covered.running_ms)
        yield ratio
        lost = rows_without_month()
        rows = GaugeMetricFamily(
            "soulbox_default_partition_rows",
            "Rows of usage that are in no month of their own.",
            labels=["table"],
        )
        for table in PARTITIONED:
            rows.add_metric([table], lost.get(table, 0))
        yield rows


def _hosts(hosts: Sequence[HostAges]) -> Iterator[GaugeMetricFamily]:
    """Yield how old each active host's figures are. Ages are infinite until the first."""
    groups = _groups(hosts)
    read = {name: hosts for name, group in groups.items() if (hosts := _read(group))}
    yield _gauge(
        "soulbox_host_seen_seconds",
        "Time since a host was read; not of those whose samples are sent to us.",
        {name: max(_age(host.seen) for host in group) for name, group in read.items()},
    )
    for name, text, value in _OF_A_GROUP:
        yield _gauge(name, text, {name: value(group) for name, group in groups.items()})
    yield from _streams(groups)


def _groups(hosts: Sequence[HostAges]) -> dict[str, list[HostAges]]:
    """Return each host by its name, and those that are one too many as others."""
    oldest_first = sorted(
        hosts, key=lambda host: (host.is_pushed, -_age(host.seen), -_age(host.folded), host.name)
    )
    groups = {host.name: [host] for host in oldest_first[:MOST_HOSTS]}
    return groups | ({OTHER: rest} if (rest := oldest_first[MOST_HOSTS:]) else {})


def _read(hosts: Sequence[HostAges]) -> list[HostAges]:
    return [host for host in hosts if not host.is_pushed]


def _age(age: timedelta | None) -> float:
    return inf if age is None else age.total_seconds()


_OF_A_GROUP: Sequence[tuple[str, str, Callable[[Sequence[HostAges]], float]]] = (
    (
        "soulbox_stream_lag_seconds",
        "Time up to which a host's samples are folded into usage, as an age.",
        lambda hosts: max(_age(host.folded) for host in hosts),
    ),
    (
        "soulbox_host_running_sandboxes",
        "Sandboxes that run on a host.",
        lambda hosts: sum(host.running for host in hosts),
    ),
    (
        "soulbox_host_lost_batches",
        "Batches of samples that a host has lost.",
        lambda hosts: sum(host.lost_batches for host in hosts),
    ),
)


def _streams(groups: dict[str, list[HostAges]]) -> Iterator[GaugeMetricFamily]:
    """Yield how long the streams are; without Redis, that it does not answer."""
    ids = [host.id for group in groups.values() for host in group]
    found: dict[UUID, int] = {}
    try:
        found, answers = lengths(ids), 1
    except StreamUnavailableError:
        answers = 0
    yield GaugeMetricFamily(
        "soulbox_streams_up", "Whether the Redis of the streams answers.", value=answers
    )
    entries = {
        name: sum(found[host.id] for host in group) for name, group in groups.items() if found
    }
    yield _gauge("soulbox_stream_entries", "Batches in a host's stream, folded ones too.", entries)


def _gauge(name: str, text: str, values: dict[str, float] | dict[str, int]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=["host"])
    for host, value in values.items():
        gauge.add_metric([host], value)
    return gauge
