"""The controls: billing and aggregation as plain Celery tasks, acknowledged before they are done.

They look first and write then, without a lock, a lease or a constraint, and what they remember of
the work they have done is written apart from the work.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis
from celery import shared_task
from django.conf import settings

from tests.faults.rounds.points import reach

BILL = "tests.plain_bill"
FOLD = "tests.plain_fold"
MOST_ENTRIES = 1000
BILLING_POINTS = ("looked for an invoice", "draft inserted", "invoice inserted")
AGGREGATION_POINTS = ("entries read", "usage inserted", "position kept")


@shared_task(name=BILL, acks_late=False, reject_on_worker_lost=False)
def bill(account_id: str) -> None:
    """Invoice an account's open period, if it has no invoice yet."""
    # Django has to be set up first.
    from billing import services  # noqa: PLC0415
    from billing.models import Account, Invoice  # noqa: PLC0415

    now = datetime.now(UTC)
    account = Account.objects.get(pk=account_id)
    period = account.open_period
    is_there = Invoice.objects.filter(account=account.pk, period_start=period.start).exists()
    reach(BILLING_POINTS[0])
    if is_there:
        return
    draft = services.draft_invoice(account.pk, period=period, now=now)
    reach(BILLING_POINTS[1])
    services.finalise_invoice(draft.pk, now=now)
    reach(BILLING_POINTS[2])


@shared_task(name=FOLD, acks_late=False, reject_on_worker_lost=False)
def fold() -> None:
    """Add what the streams have after the position that Redis keeps, and then keep the new one."""
    from metering.models import Host  # noqa: PLC0415 - Django has to be set up first

    for host_id in Host.objects.values_list("pk", flat=True):
        _fold_host(host_id)


def _fold_host(host_id: UUID) -> None:
    # Django has to be set up first.
    from metering import stream  # noqa: PLC0415
    from metering.samples import unpack  # noqa: PLC0415

    with redis.Redis.from_url(settings.STREAM_REDIS_URL) as client:
        key = f"plain:position:{host_id}"
        kept: Any = client.get(key)
        position: Any = json.loads(kept or '{"entry": "0-0", "cpu_ns": {}}')
        grown: Counter[int] = Counter()
        for entry in stream.read_after(host_id, position["entry"], limit=MOST_ENTRIES):
            position["entry"] = entry.entry_id
            for sample in unpack(entry.packed).samples:
                life, cpu_ns = int(sample["life"]), int(sample["cpu_ns"])
                grown[life] += cpu_ns - position["cpu_ns"].get(str(life), 0)
                position["cpu_ns"][str(life)] = cpu_ns
        if not grown:
            return
        reach(AGGREGATION_POINTS[0])
        _add(grown)
        reach(AGGREGATION_POINTS[1])
        client.set(key, json.dumps(position))
        reach(AGGREGATION_POINTS[2])


def _add(grown: Counter[int]) -> None:
    # Django has to be set up first.
    from django.db import transaction  # noqa: PLC0415

    from metering.models import Life, UsageRecord  # noqa: PLC0415
    from metering.period import window_start  # noqa: PLC0415

    with transaction.atomic():
        for life in Life.objects.filter(pk__in=grown):
            window = window_start(life.started_at)
            of_life = UsageRecord.objects.filter(life=life, window_start=window)
            if found := of_life.first():
                of_life.update(cpu_ns=found.cpu_ns + grown[life.pk])
                continue
            quantities = [
                one.name
                for one in UsageRecord._meta.get_fields()
                if getattr(one, "get_internal_type", str)() == "BigIntegerField"
            ]
            nothing = dict.fromkeys(quantities, 0)
            UsageRecord.objects.create(
                **{**nothing, "life": life, "window_start": window, "cpu_ns": grown[life.pk]}
            )
