"""The benchmark's own tables, and setting the product's back to where a measurement began."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

import psycopg
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connections, models
from django.db.models import Sum

from bench.aggregating.fleet import Totals
from bench.aggregating.processes import Servers
from metering.models import NetworkUsageRecord, UsageRecord
from metering.partitions import make_partitions
from soulbox.keeper import SUPERUSER
from soulbox.services import start_services

REDIS_PAUSE_MS = 50
# What `record_fleet` makes; folding changes none of it.
RECORDED = {
    "metering_accountregistration",
    "metering_host",
    "metering_sandbox",
    "metering_life",
}
# What a fold goes on from.
STATE = ("metering_lifereading", "metering_interfacereading", "metering_streamcursor")


class PlainUsage(models.Model):
    """A usage row as the straightforward way keeps it."""

    life = models.BigIntegerField()
    window_start = models.DateTimeField()
    cpu_ns = models.DecimalField(max_digits=30, decimal_places=0)
    memory_byte_ms = models.DecimalField(max_digits=30, decimal_places=0)
    rx_bytes = models.DecimalField(max_digits=30, decimal_places=0)
    tx_bytes = models.DecimalField(max_digits=30, decimal_places=0)
    disk_read_bytes = models.DecimalField(max_digits=30, decimal_places=0)
    disk_write_bytes = models.DecimalField(max_digits=30, decimal_places=0)
    sample_count = models.IntegerField()

    # Stated, since the class belongs to no installed app that django-stubs would look at.
    objects: ClassVar[models.Manager[PlainUsage]] = models.Manager()

    class Meta:
        app_label = "bench"
        constraints = [
            models.UniqueConstraint(
                fields=["life", "window_start"], name="plain_usage_once_per_window"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.life} at {self.window_start}"


SAMPLE_COLUMNS = (
    "life",
    "read_ms",
    "cpu_ns",
    "memory_bytes",
    "memory_limit_bytes",
    "disk_read_bytes",
    "disk_write_bytes",
    "known",
    "rx_bytes",
    "tx_bytes",
)
_SQL_TABLES = f"""
CREATE TABLE bench_sample ({", ".join(f"{name} bigint NOT NULL" for name in SAMPLE_COLUMNS)});
CREATE TABLE bench_usage (
    life bigint, window_ms bigint, cpu_ns bigint NOT NULL, memory_byte_ms bigint NOT NULL,
    rx_bytes bigint NOT NULL, tx_bytes bigint NOT NULL, sample_count bigint NOT NULL,
    PRIMARY KEY (life, window_ms));
"""


def prepare() -> Servers:
    """Start the servers with empty tables of this version; return their processes."""
    start_services()
    call_command("migrate", verbosity=0)
    make_partitions(now=datetime.now(UTC))
    with connections["owner"].schema_editor() as editor:
        editor.create_model(PlainUsage)
    with connections["owner"].cursor() as cursor:
        cursor.execute(_SQL_TABLES)
    pid_file = settings.HOME / "postgresql" / "postmaster.pid"
    return Servers(
        redis=int(stream_redis().info()["process_id"]),
        postgresql=int(pid_file.read_text().splitlines()[0]),
    )


def stream_redis() -> redis.Redis:
    """Return a connection of the benchmark's own to the Redis that holds the streams."""
    return redis.Redis.from_url(settings.STREAM_REDIS_URL)


def empty() -> None:
    """Forget every fleet: all of metering's rows and all of Redis."""
    _truncate(_metering_tables() | {"bench_plainusage", "bench_sample", "bench_usage"})
    stream_redis().flushall()


def keep_state() -> None:
    """Keep a copy of the readings and the cursor as they stand."""
    with connections["owner"].cursor() as cursor:
        for name in STATE:
            cursor.execute(f"DROP TABLE IF EXISTS bench_kept_{name}")
            cursor.execute(f"CREATE TABLE bench_kept_{name} AS TABLE {name}")


def restore_state() -> None:
    """Take away all usage; readings and cursor stand where `keep_state` found them."""
    _truncate(_metering_tables() - RECORDED)
    with connections["owner"].cursor() as cursor:
        for name in STATE:
            cursor.execute(f"INSERT INTO {name} TABLE bench_kept_{name}")
    settle()


def empty_samples() -> None:
    """Empty the tables of the way that aggregates in PostgreSQL."""
    _truncate({"bench_sample", "bench_usage"})
    settle()


def settle() -> None:
    """Return when neither server has work of its own left to do."""
    parameters = connections["owner"].get_connection_params() | {"user": SUPERUSER}
    with psycopg.connect(**parameters, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    server = stream_redis()
    while any(
        server.info("persistence")[name]
        for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    ):
        # Blocks on the server for so long: the key is never there.
        server.blpop(["nothing"], timeout=REDIS_PAUSE_MS / 1000)


def usage() -> Totals:
    """Return what the product's usage records add up to."""
    found = UsageRecord.objects.aggregate(cpu=Sum("cpu_ns"), memory=Sum("memory_byte_ms"))
    network = NetworkUsageRecord.objects.aggregate(rx=Sum("rx_bytes"), tx=Sum("tx_bytes"))
    return Totals(
        cpu_ns=int(found["cpu"]),
        memory_byte_ms=int(found["memory"]),
        rx_bytes=int(network["rx"]),
        tx_bytes=int(network["tx"]),
    )


def _metering_tables() -> set[str]:
    tables = connections["owner"].introspection.django_table_names(include_views=False)
    return {name for name in tables if name.startswith("metering_")}


def _truncate(tables: set[str]) -> None:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(sorted(tables))}")
