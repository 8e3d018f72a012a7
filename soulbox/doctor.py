"""`manage.py doctor`: everything that has to work, looked at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.conf import settings
from django.db import DatabaseError

from metering.pace import MEMORY_LIMIT
from metering.queries import HostState, host_states, stream_lag, table_problems
from metering.stream import StreamUnavailableError, memory_share
from payments import queries
from payments.provider import ProviderError
from payments.services.providing import provider
from soulbox import doctor_machine, doctor_servers
from soulbox.canaries import missing
from soulbox.findings import Finding, good, note, wrong
from soulbox.health import pending_migrations
from soulbox.services import ServicesError, refuse_unsafe_settings


def examine(*, now: datetime) -> list[Finding]:
    """Return what was found, the services first."""
    findings = list(_services())
    if not all(finding.is_good for finding in findings):
        return findings
    tables = list(_tables())
    findings += [
        *doctor_servers.postgresql(),
        *doctor_servers.redis_servers(),
        *doctor_servers.broker(),
        *doctor_machine.django_settings(),
        *doctor_machine.disks(),
        *doctor_machine.fonts(),
        *doctor_machine.static_files(),
        *doctor_machine.mail_server(),
        *tables,
        *_stream(),
    ]
    if all(finding.is_good for finding in tables):
        findings += [
            *doctor_machine.partitions(now=now),
            *_hosts(now),
            *doctor_machine.engines(),
            *_workers(now),
            *_payments(now),
        ]
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
        waiting = pending_migrations()
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


def _workers(now: datetime) -> Iterator[Finding]:
    silent = missing(now=now)
    for queue in silent:
        yield Finding(
            is_good=False,
            text=f"No worker took a task of the queue {queue} lately, or beat is down",
        )
    if not silent:
        yield Finding(is_good=True, text="beat sends, and the workers of each queue take")


def _payments(now: datetime) -> Iterator[Finding]:
    if not settings.STRIPE_API_KEY:
        # That is a way to run it, and no fault.
        yield note("STRIPE_API_KEY is not set: invoices wait, nothing is collected")
        return
    yield from _keys_of_stripe()
    mode = "test" if "_test_" in settings.STRIPE_API_KEY else "live"
    try:
        next(provider().events(since=now, only_undelivered=True), None)
    except ProviderError as error:
        yield Finding(is_good=False, text=f"Stripe ({mode} mode) does not answer: {error}")
    else:
        yield Finding(is_good=True, text=f"Stripe answers, in {mode} mode")
    unknown, differences = queries.unknown_attempts(), sum(queries.open_differences().values())
    yield Finding(is_good=not differences, text=f"{differences} differences with Stripe are open")
    yield Finding(is_good=True, text=f"{unknown} payment attempts have no answer at this moment")
    for what, at in (
        ("webhook came", queries.last_webhook_at()),
        ("comparison with Stripe ended", queries.last_reconciled_at()),
    ):
        when = f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"
        yield Finding(is_good=True, text=f"The last {what}: {when}")


def _keys_of_stripe() -> Iterator[Finding]:
    if not settings.STRIPE_API_KEY.startswith(("sk_test_", "sk_live_", "rk_test_", "rk_live_")):
        yield wrong("STRIPE_API_KEY is no secret key (sk_…) or restricted key (rk_…) of Stripe")
    is_open = settings.EMBEDDED is None and not settings.DEBUG
    if settings.STRIPE_IS_TEST and is_open:
        yield note("STRIPE_API_KEY is a test key: no real money is collected")
    if not (settings.STRIPE_IS_TEST or is_open):
        yield wrong("STRIPE_API_KEY is a live key where things are tried: take a test key")
    if not settings.STRIPE_WEBHOOK_SECRETS:
        yield wrong("STRIPE_WEBHOOK_SECRET is not set: no webhook is taken")
    elif not all(secret.startswith("whsec_") for secret in settings.STRIPE_WEBHOOK_SECRETS):
        yield wrong("STRIPE_WEBHOOK_SECRET is no signing secret (whsec_…) of a webhook endpoint")
    else:
        yield good("STRIPE_WEBHOOK_SECRET is set")


def _about(state: HostState) -> str:
    offset_ms = state.clock_offset_ms
    clock = "" if offset_ms is None else f", clock {offset_ms / 1000:+.1f} s"
    waiting = stream_lag(state.host_id)
    return f"{state.summary()}{clock}, {waiting.entries} batches wait"
