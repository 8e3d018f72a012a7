"""`manage.py doctor`: everything that has to work, looked at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from metering.pace import MEMORY_LIMIT
from metering.queries import HostState, host_states, stream_lag, table_problems
from metering.stream import StreamUnavailableError, memory_share
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
    return [*findings, *_tables(), *_stream(), *_hosts(now)]


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


def _about(state: HostState) -> str:
    offset_ms = state.clock_offset_ms
    clock = "" if offset_ms is None else f", clock {offset_ms / 1000:+.1f} s"
    waiting = stream_lag(state.host_id)
    return f"{state.summary()}{clock}, {waiting.entries} batches wait"
