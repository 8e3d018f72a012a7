"""The load under which a dump is made, and what is true of the database before and after.

Run as `python -m tests.soulbox.drill prepare|meter|bill|collect|facts …`, with the environment of
one database; `tests/soulbox/test_backups.py` puts them together.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import django

TICK = timedelta(seconds=30)
AROUND_THE_END = timedelta(minutes=20)
LAST_DAY_OF_ALL_MONTHS = 28
PAUSE_S = 0.1
MOST_S = 600


def period_end(now: datetime) -> datetime:
    """Return when the accounts' first month ended: some days ago."""
    ago = now - timedelta(days=3)
    day = min(ago.day, LAST_DAY_OF_ALL_MONTHS)
    return ago.replace(day=day, hour=0, minute=0, second=0, microsecond=0)


def prepare(host: str, accounts: str) -> None:
    """Open accounts, whose month is metered to its end, with a card each."""
    from billing import services  # noqa: PLC0415 - the settings have to be there first
    from metering.services import register_host  # noqa: PLC0415 - the same
    from payments.services.customers import ensure_customer  # noqa: PLC0415 - the same

    now = datetime.now(UTC)
    end = period_end(now)
    start = (end.replace(day=1) - timedelta(days=1)).replace(day=end.day)
    register_host(host_id=UUID(host), name="drill", endpoint="simulator:", now=start)
    customers = []
    for number in range(int(accounts)):
        account = services.open_account(name=f"Drill {number}", now=start, anchor_day=start.day)
        customers.append(ensure_customer(account.pk, now=now))
    at = end - AROUND_THE_END
    while at < end + AROUND_THE_END:
        _pass(host, at)
        at += TICK
    _print(customers)


def meter(host: str, until: str) -> None:
    """Collect and fold in real time, until the file is there; sandboxes come and go."""
    for _ in _while_missing(until):
        _pass(host, datetime.now(UTC))


def bill(ended: str, dumped: str) -> None:
    """Finalise and collect one account after the other; the last third after the dump is made."""
    from billing import services  # noqa: PLC0415 - the settings have to be there first
    from billing.models import Account, Invoice  # noqa: PLC0415 - the same
    from payments.services.collecting import take_step  # noqa: PLC0415 - the same
    from payments.services.sweeps import (  # noqa: PLC0415 - the same
        begin_due_collections,
        due_steps,
    )

    def collect() -> None:
        now = datetime.now(UTC)
        begin_due_collections(now)
        for collection_id in due_steps(now):
            while take_step(collection_id, now=now):
                pass

    accounts = list(Account.objects.order_by("name"))
    for number, account in enumerate(accounts):
        if 3 * number >= 2 * len(accounts):
            for _ in _while_missing(dumped):
                pass
        now = datetime.now(UTC)
        if not Invoice.objects.filter(account=account, number__isnull=False).exists():
            draft = services.draft_invoice(account.pk, period=account.open_period, now=now)
            services.finalise_invoice(draft.pk, now=now)
        collect()
        time.sleep(PAUSE_S)
    Path(ended).touch()


def facts() -> None:
    """Print what the database says: invoices with what they asked for and whether it came."""
    from django.db.models import Sum  # noqa: PLC0415 - the settings have to be there first

    from billing.models import Invoice, NumberSeries  # noqa: PLC0415 - the same
    from metering.models import LifeReading, UsageRecord  # noqa: PLC0415 - the same
    from payments.models import Allocation, Difference  # noqa: PLC0415 - the same

    paid = dict(
        Allocation.objects.filter(invoice__isnull=False)
        .values_list("invoice__account__name")
        .annotate(sum=Sum("amount"))
    )
    used = dict(UsageRecord.objects.values_list("life__key").annotate(sum=Sum("cpu_ns")).order_by())
    readings = dict(LifeReading.objects.values_list("life__key", "cpu_ns"))
    _print(
        {
            "invoices": {
                invoice.account.name: {
                    "number": invoice.number,
                    "status": invoice.status,
                    "due": str(invoice.amount_due),
                    "paid": str(paid.get(invoice.account.name, 0)),
                }
                for invoice in Invoice.objects.exclude(number=None).select_related("account")
            },
            "last_number": sum(NumberSeries.objects.values_list("last_number", flat=True)),
            "differences": [str(one) for one in Difference.objects.filter(settled_at=None)],
            "month": f"{Invoice.objects.earliest('period_start').period_start:%Y-%m}",
            "used": used,
            "readings": readings,
        }
    )


def close(host: str) -> None:
    """Have the host read once more, and take it out of service: the clock goes on without it."""
    from metering.models import Host  # noqa: PLC0415 - the settings have to be there first

    _pass(host, datetime.now(UTC))
    Host.objects.filter(pk=host).update(is_active=False)


def _pass(host: str, now: datetime) -> None:
    from metering.aggregator import aggregate_host  # noqa: PLC0415 - the settings come first
    from metering.collector import collect_host  # noqa: PLC0415 - the same

    collect_host(UUID(host), now=now, source=_fleet(now))
    aggregate_host(UUID(host), now=now)


def _fleet(now: datetime) -> Any:
    """Return what runs at `now`: a sandbox of each account all along, and others that come and go.

    It follows from the clock alone, so that it goes on for a restored database as it was.
    """
    from billing.models import Account  # noqa: PLC0415 - the settings have to be there first
    from metering.simulator import SimulatedSandbox, Simulator  # noqa: PLC0415 - the same

    accounts = list(Account.objects.order_by("name").values_list("pk", flat=True))
    began = period_end(datetime.now(UTC)) - AROUND_THE_END
    lasting = [
        SimulatedSandbox(
            container_id=f"drill-{number}",
            sandbox_id="lasting",
            account_id=str(account_id),
            started_at=began,
            cpu_ns_per_ms=2_000_000_000,
            memory_bytes=64_000_001 + number,
            tx_bytes_per_ms=7,
        )
        for number, account_id in enumerate(accounts)
    ]
    # One more begins every three seconds, and runs for twenty.
    newest = int(now.timestamp()) // 3
    passing = [
        SimulatedSandbox(
            container_id=f"passing-{slot}",
            sandbox_id=f"passing-{slot}",
            account_id=str(accounts[slot % len(accounts)]),
            started_at=(start := datetime.fromtimestamp(3 * slot, UTC)),
            ended_at=start + timedelta(seconds=20),
            cpu_ns_per_ms=500_001,
            memory_bytes=64_000_001,
        )
        for slot in range(newest - 20, newest + 1)
    ]
    return Simulator([*lasting, *passing], clock=lambda: now)


def _while_missing(file: str) -> Iterator[None]:
    deadline = time.monotonic() + MOST_S
    while not Path(file).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(file)
        yield
        time.sleep(PAUSE_S)


def _print(told: Any) -> None:
    sys.stdout.write(json.dumps(told, default=str))


if __name__ == "__main__":
    django.setup()
    work: dict[str, Callable[..., None]] = {
        "prepare": prepare,
        "meter": meter,
        "bill": bill,
        "facts": facts,
        "close": close,
    }
    work[sys.argv[1]](*sys.argv[2:])
