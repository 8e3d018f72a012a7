from __future__ import annotations

import os

from celery import Celery, signals
from django.conf import settings

from soulbox.services import start_background_process

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")

app = Celery("soulbox")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.celeryd_init.connect
@signals.beat_init.connect
def _start_safely(**_sender: object) -> None:
    """Have the services up and safe before the first task or tick."""
    start_background_process()


def _every(task: str, *, seconds: float, queue: str) -> dict[str, object]:
    # A tick nobody took within its own interval is worth nothing: the next one is there.
    return {"task": task, "schedule": seconds, "options": {"queue": queue, "expires": seconds}}


# Intervals only, in UTC: a crontab entry missed during an outage would wait for its next date.
app.conf.beat_schedule = {
    "collect": _every(
        "metering.tasks.collect_all", seconds=settings.METERING_INTERVAL_S, queue="default"
    ),
    "read storage": _every(
        "metering.tasks.read_storage_of_all",
        seconds=settings.METERING_STORAGE_INTERVAL_S,
        queue="default",
    ),
    "close silent hosts": _every("metering.tasks.close_silent", seconds=60, queue="default"),
    "aggregate": _every("metering.tasks.aggregate_all", seconds=15, queue="aggregate"),
    "sweep billing": _every("billing.tasks.sweep_billing", seconds=15, queue="billing"),
    "advance closings": _every("billing.tasks.advance_closings", seconds=60, queue="billing"),
    "expire credits": _every("billing.tasks.expire_credits", seconds=60 * 60, queue="billing"),
    "note unpriced usage": _every(
        "billing.tasks.note_unpriced_usage", seconds=60 * 60, queue="billing"
    ),
    "note unbilled late usage": _every(
        "billing.tasks.note_unbilled_late_usage", seconds=60 * 60, queue="billing"
    ),
    "add up desk": _every("billing.tasks.add_up_desk", seconds=5 * 60, queue="default"),
    "forget old calls": _every("billing.tasks.forget_old_calls", seconds=60 * 60, queue="default"),
    "sweep mail": _every("billing.tasks.sweep_mail", seconds=15, queue="default"),
    "look at caps": _every("billing.tasks.look_at_caps", seconds=15, queue="billing"),
    "sweep webhooks": _every("billing.tasks.sweep_webhooks", seconds=15, queue="default"),
    "forget old events": _every(
        "billing.tasks.forget_old_events", seconds=60 * 60, queue="default"
    ),
    "tell reached budgets": _every(
        "billing.tasks.tell_reached_budgets", seconds=5 * 60, queue="default"
    ),
    "keep invoice days": _every(
        "billing.tasks.keep_invoice_days", seconds=10 * 60, queue="billing"
    ),
    # Most find that the day's round is done.
    "check conservation": _every(
        "billing.tasks.check_conservation", seconds=5 * 60, queue="billing"
    ),
    "sweep events": _every("payments.tasks.sweep_events", seconds=15, queue="payments"),
    "sweep collections": _every("payments.tasks.sweep_collections", seconds=15, queue="payments"),
    "sweep dunning": _every("payments.tasks.sweep_dunning", seconds=15, queue="payments"),
    "tell expiring cards": _every(
        "payments.tasks.tell_expiring_cards", seconds=60 * 60, queue="payments"
    ),
    "tell customers": _every("payments.tasks.tell_customers", seconds=5 * 60, queue="payments"),
    "sweep top-ups": _every("payments.tasks.sweep_top_ups", seconds=15, queue="payments"),
    "sweep refunds": _every("payments.tasks.sweep_refunds", seconds=15, queue="payments"),
    # Most find that the day's look is done.
    "reconcile": _every("payments.tasks.reconcile", seconds=5 * 60, queue="payments"),
    "settle money": _every("payments.tasks.settle_money", seconds=60, queue="payments"),
    "sweep subscriptions": _every(
        "payments.tasks.sweep_subscriptions", seconds=15, queue="payments"
    ),
    "make partitions": _every(
        "metering.tasks.make_partitions_ahead", seconds=6 * 60 * 60, queue="default"
    ),
    "summarise usage": _every(
        "metering.tasks.summarise_touched_days", seconds=60 * 60, queue="default"
    ),
    "clean up metering": _every("metering.tasks.clean_up", seconds=24 * 60 * 60, queue="default"),
    "audit usage": _every("metering.tasks.audit_usage", seconds=24 * 60 * 60, queue="default"),
}
