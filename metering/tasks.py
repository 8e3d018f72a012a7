"""Celery's way in: look up, call a service. Every task is safe to repeat and to lose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.db import OperationalError
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from metering import audit, retention, summaries, usage_counters
from metering.aggregator import aggregate_host
from metering.collector import collect_host, collect_storage
from metering.host_queues import queue_of, with_room
from metering.models import Host
from metering.pace import interval_of, is_due
from metering.partitions import make_partitions, rows_without_month
from metering.services import PUSHED, note_fold_problem
from metering.silence import close_silent_hosts
from metering.source import SourceError
from metering.stream import StreamUnavailableError, collecting

logger = logging.getLogger(__name__)

# A pass that waited longer than this in its queue is worth nothing: the next is due.
LATE_INTERVALS = 5


_OUTAGES = (SourceError, StreamUnavailableError, OperationalError, BrokerError, RedisError)


@contextmanager
def _outages_in_one_line(doing: str, **where: str) -> Iterator[None]:
    """Log a server that is not there without a traceback; the next run is seconds away."""
    try:
        yield
    except _OUTAGES as error:
        reason = " ".join(str(error).split())
        logger.warning("%s failed: %s", doing, reason, extra=where)


@shared_task(name="metering.tasks.collect_all")
def collect_all() -> None:
    """Send each active host's queue one pass, unless nobody takes from it.

    Where samples are sent there is none to make.
    """
    with _outages_in_one_line("sending passes"):
        for host_id in with_room(_hosts_to_collect()):
            collect.apply_async(
                (str(host_id),),
                queue=queue_of(host_id),
                expires=settings.METERING_INTERVAL_S * LATE_INTERVALS,
            )


def _hosts_to_collect() -> list[UUID]:
    collected = Host.objects.filter(is_active=True).exclude(endpoint__startswith=PUSHED)
    return list(collected.values_list("pk", flat=True))


@shared_task(name="metering.tasks.collect")
def collect(host_id: str) -> None:
    """Read a host once, unless a pass over it is still going on, or would be too soon.

    While folding does not keep up, passes are further apart than ticks.
    """
    with (
        _outages_in_one_line("collecting", host=host_id),
        collecting(UUID(host_id)) as is_free,
    ):
        now = datetime.now(UTC)
        host = Host.objects.select_related("cursor").get(pk=host_id)
        interval = interval_of(host.cursor, now=now)
        if is_free and is_due(host.events_read_until, interval, now=now):
            collect_host(UUID(host_id), now=now, interval=interval)


@shared_task(name="metering.tasks.read_storage_of_all")
def read_storage_of_all() -> None:
    """Send each active host's queue one reading of storage."""
    with _outages_in_one_line("sending readings of storage"):
        for host_id in with_room(_hosts_to_collect()):
            read_storage.apply_async(
                (str(host_id),),
                queue=queue_of(host_id),
                expires=settings.METERING_STORAGE_INTERVAL_S,
            )


@shared_task(name="metering.tasks.read_storage")
def read_storage(host_id: str) -> None:
    """Read what the sandboxes of a host take up."""
    with _outages_in_one_line("reading storage", host=host_id):
        collect_storage(UUID(host_id), now=datetime.now(UTC))


@shared_task(name="metering.tasks.close_silent")
def close_silent() -> None:
    """Close the lives of hosts that nobody hears of."""
    with _outages_in_one_line("closing silent hosts"):
        close_silent_hosts(now=datetime.now(UTC))


@shared_task(name="metering.tasks.aggregate_all")
def aggregate_all() -> None:
    """Send one aggregation for each host."""
    with _outages_in_one_line("sending aggregations"):
        for host_id in Host.objects.values_list("pk", flat=True):
            aggregate.apply_async((str(host_id),), queue="aggregate", expires=60)


@shared_task(name="metering.tasks.aggregate")
def aggregate(host_id: str) -> None:
    """Fold what a host's stream holds."""
    try:
        with _outages_in_one_line("aggregating", host=host_id):
            aggregate_host(UUID(host_id), now=datetime.now(UTC))
    except Exception as error:
        # Every later batch of the host waits behind this one, so it has to be seen.
        note_fold_problem(UUID(host_id), f"{type(error).__name__}: {error}")
        raise


@shared_task(name="metering.tasks.make_partitions_ahead")
def make_partitions_ahead() -> None:
    """Have the partitions of the coming months ready, and every row in a month of its own."""
    for table, count in rows_without_month().items():
        logger.error("rows without a month", extra={"table": table, "rows": count})
    for name in make_partitions(now=datetime.now(UTC)):
        logger.info("partition made", extra={"partition": name})


@shared_task(name="metering.tasks.clean_up", time_limit=280, soft_time_limit=270)
def clean_up() -> None:
    """Let go what retention no longer keeps."""
    with _outages_in_one_line("cleaning up"):
        for line in retention.clean_up(now=datetime.now(UTC)).lines():
            logger.info("clean-up: %s", line)


@shared_task(name="metering.tasks.summarise_touched_days", time_limit=280, soft_time_limit=270)
def summarise_touched_days() -> None:
    """Recompute the day summaries of what changed."""
    with _outages_in_one_line("summarising days"):
        done = summaries.summarise_touched_days(now=datetime.now(UTC))
        logger.info("days summarised", extra=asdict(done))


@shared_task(name="metering.tasks.choose_told_accounts")
def choose_told_accounts() -> None:
    """Choose the accounts whose usage a monitor is told of by itself."""
    with _outages_in_one_line("choosing whom a monitor is told of"):
        usage_counters.choose_told_accounts(now=datetime.now(UTC))


@shared_task(name="metering.tasks.audit_usage", time_limit=280, soft_time_limit=270)
def audit_usage() -> None:
    """Prove that all usage adds up, or say in the log what does not."""
    with _outages_in_one_line("auditing usage"):
        failing = audit.audit_usage(now=datetime.now(UTC)).failing
        if failing:
            counts = ", ".join(f"{check}: {count}" for check, count in failing.items())
            logger.error("usage does not add up: %s", counts)
