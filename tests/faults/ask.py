"""Prepares an installation for a fault test, and says afterwards what it measured.

Run as `python -m tests.faults.ask prepare|state ACCOUNT HOST`; prints JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from uuid import UUID

import django

from metering.period import to_ms

# The rate of the simulator's small fleet: sandbox n uses n quarters of a core.
NS_PER_MS = 250_000


def prepare(account_id: UUID, host_id: UUID) -> dict[str, object]:
    from billing.services import open_account  # noqa: PLC0415 - the settings have to be there first
    from metering import services  # noqa: PLC0415 - the same

    now = datetime.now(UTC)
    open_account(name="Ada", account_id=account_id, now=now)
    services.register_host(
        host_id=host_id, name="simulator", endpoint=f"simulator:?account={account_id}", now=now
    )
    return {}


def state(account_id: UUID, host_id: UUID) -> dict[str, object]:
    """Return what is true at one moment."""
    from django.db import connection, transaction  # noqa: PLC0415 - the settings come first

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return _state(account_id, host_id)


def _state(account_id: UUID, host_id: UUID) -> dict[str, object]:
    """Return cpu as it is stored, and as the rates and the time of the last reading make it."""
    from django.db.models import Sum  # noqa: PLC0415 - the settings have to be there first

    from metering.models import Gap, LifeReading, StreamCursor, UsageRecord  # noqa: PLC0415 - the same
    from metering.queries import host_states  # noqa: PLC0415 - the same

    del account_id
    expected = 0
    newest_ms = 0
    for reading in LifeReading.objects.filter(life__host_id=host_id).select_related(
        "life__sandbox"
    ):
        number = int(reading.life.sandbox.sandbox_id.rpartition("-")[2])
        ran_ms = reading.read_ms - to_ms(reading.life.started_at)
        expected += NS_PER_MS * number * ran_ms
        newest_ms = max(newest_ms, reading.read_ms)
    (host,) = host_states(now=datetime.now(UTC))
    records = UsageRecord.objects.filter(life__host_id=host_id)
    return {
        "cpu_ns": int(records.aggregate(total=Sum("cpu_ns"))["total"] or 0),
        "expected_cpu_ns": expected,
        "newest_ms": newest_ms,
        "lost": StreamCursor.objects.get(host_id=host_id).lost_batch_count,
        "folded": StreamCursor.objects.get(host_id=host_id).sample_count,
        "gaps": Gap.objects.filter(life__host_id=host_id, reason=Gap.Reason.BATCH_LOST).count(),
        "state": host.state,
    }


if __name__ == "__main__":
    django.setup()
    asked = {"prepare": prepare, "state": state}[sys.argv[1]]
    sys.stdout.write(json.dumps(asked(UUID(sys.argv[2]), UUID(sys.argv[3]))))
