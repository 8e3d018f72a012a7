"""What a monitor reads of the broker: how many tasks wait in each queue, and are with workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import redis
from django.conf import settings
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry

from metering.models import Host
from soulbox.celery import QUEUES
from soulbox.metering_metrics import MOST_HOSTS

BROKER_TIMEOUT_S = 0.5
# How Kombu names a queue's lists by priority, and the hash of what workers hold.
_PRIORITIES = ("", *(f"\x06\x16{step}" for step in (3, 6, 9)))
_UNACKNOWLEDGED = "unacked"
COLLECT = "collect"


class BrokerQueues(Collector):
    """How much waits in the queues. Zeros are told too; where Redis is away, only that it is."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, as of now."""
        lengths: Mapping[str, int] = {}
        held = GaugeMetricFamily(
            "soulbox_queue_unacknowledged", "Tasks that workers have taken and not finished."
        )
        answers = 1
        try:
            lengths, unacknowledged = _look()
            held.add_metric([], unacknowledged)
        except redis.RedisError:
            answers = 0
        yield GaugeMetricFamily(
            "soulbox_broker_up", "Whether the Redis of the broker answers.", value=answers
        )
        yield held
        gauge = GaugeMetricFamily(
            "soulbox_queue_length",
            "Tasks that wait for a worker, by queue; those of all hosts' queues as `collect`.",
            labels=["queue"],
        )
        for queue, length in lengths.items():
            gauge.add_metric([queue], length)
        yield gauge


def _look() -> tuple[dict[str, int], int]:
    """Return how much waits in each queue, and how much workers hold. Raises RedisError."""
    hosts = Host.objects.filter(is_active=True).order_by("pk").values_list("pk", flat=True)
    groups = {queue: [queue] for queue in QUEUES}
    groups[COLLECT] = [f"{COLLECT}.{host_id}" for host_id in hosts[:MOST_HOSTS]]
    pipeline = _broker().pipeline(transaction=False)
    for queues in groups.values():
        for queue in queues:
            for priority in _PRIORITIES:
                pipeline.llen(f"{queue}{priority}")
    pipeline.hlen(_UNACKNOWLEDGED)
    *answers, unacknowledged = pipeline.execute()
    told = iter(answers)
    lengths = {
        name: sum(next(told) for _queue in queues for _priority in _PRIORITIES)
        for name, queues in groups.items()
    }
    return lengths, unacknowledged


@cache
def _broker() -> redis.Redis:
    # Without a second try: the next scrape is one.
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=BROKER_TIMEOUT_S,
        socket_connect_timeout=BROKER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
