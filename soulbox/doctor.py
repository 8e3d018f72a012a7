"""`manage.py doctor`: everything that has to work, looked at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from metering.pace import MEMORY_LIMIT
from metering.queries import HostState, host_states, stream_lag, table_problems
from metering.stream import StreamUnavailableError, memory_share
from payments import queries
from payments.provider import ProviderError
from payments.services.providing import provider
from soulbox.services import ServicesError, refuse_unsafe_settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str


def examine(*, now: datetime) -> list[Finding]:
    """Return what was found, the services first."""
    findings = list(_services())
    if not all(finding.is_good for finding in findings):
        return findings
    tables = list(_tables())
    findings += [*tables, *_stream(), *_hosts(now)]
    if all(finding.is_good for finding in tables):
        findings += _payments(now)
    return findings


def _services() -> Iterator[Finding]:
    try:
        silent = refuse_unsafe_settings()
    except ServicesError as error:
        yield from (Finding(is_good=False, text=line) for line in str(error).splitlines())
        return
    yield from (Finding(is_good=False, text=line) for line in silent)
    if not silent:
        yield Finding(is_good=True, text="PostgreSQL and Redis answer, and lose nothing")


def _tables() -> Iterator[Finding]:
    try:
        executor = MigrationExecutor(connections["default"])
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield Finding(is_good=False, text=f"The tables cannot be looked at: {error}")
        return
    if waiting:
        yield Finding(is_good=False, text=f"{len(waiting)} migrations wait: manage.py migrate")
        return
    problems = table_problems()
    yield from (Finding(is_good=False, text=problem) for problem in problems)
    if not problems:
        yield Finding(is_good=True, text="tables are migrated, every usage record is in its month")


def _stream() -> Iterator[Finding]:
    try:
        share = memory_share()
    except StreamUnavailableError as error:
        yield Finding(is_good=False, text=str(error))
        return
    yield Finding(
        is_good=share <= MEMORY_LIMIT, text=f"Redis uses {share:.0%} of what it may for streams"
    )


def _hosts(now: datetime) -> Iterator[Finding]:
    states = host_states(now=now)
    if not states:
        yield Finding(is_good=False, text="No host is metered: manage.py add_host registers one")
    for state in states:
        is_good = state.state in {"metered", "not active"}
        yield Finding(is_good=is_good, text=_about(state))


def _payments(now: datetime) -> Iterator[Finding]:
    if not settings.STRIPE_API_KEY:
        # That is a way to run it, and no fault.
        yield Finding(
            is_good=True, text="STRIPE_API_KEY is not set: invoices wait, nothing is collected"
        )
        return
    mode = "test" if "_test_" in settings.STRIPE_API_KEY else "live"
    try:
        next(provider().events(since=now, only_undelivered=True), None)
    except ProviderError as error:
        yield Finding(is_good=False, text=f"Stripe ({mode} mode) does not answer: {error}")
    else:
        yield Finding(is_good=True, text=f"Stripe answers, in {mode} mode")
    if not settings.STRIPE_WEBHOOK_SECRETS:
        yield Finding(is_good=False, text="STRIPE_WEBHOOK_SECRET is not set: no webhook is taken")
    unknown, differences = queries.unknown_attempts(), sum(queries.open_differences().values())
    yield Finding(is_good=not differences, text=f"{differences} differences with Stripe are open")
    yield Finding(is_good=True, text=f"{unknown} payment attempts have no answer at this moment")
    for what, at in (
        ("webhook came", queries.last_webhook_at()),
        ("comparison with Stripe ended", queries.last_reconciled_at()),
    ):
        when = f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"
        yield Finding(is_good=True, text=f"The last {what}: {when}")


def _about(state: HostState) -> str:
    offset_ms = state.clock_offset_ms
    clock = "" if offset_ms is None else f", clock {offset_ms / 1000:+.1f} s"
    waiting = stream_lag(state.host_id)
    return f"{state.summary()}{clock}, {waiting.entries} batches wait"
