from __future__ import annotations

import inspect
import os
from typing import Any

from celery import Celery, Task, signals
from django.conf import settings
from django.db import connections
from structlog.contextvars import bind_contextvars, unbind_contextvars

from soulbox.messages import CountedTask, leave_out_what_is_no_message
from soulbox.services import start_background_process
from soulbox.tracing import send_rest, start_tracing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")

QUEUES = ("aggregate", "billing", "payments", "default")
"""Whose workers serve everybody; each host has one of its own besides."""
CANARY_INTERVAL_S = 30

leave_out_what_is_no_message()
app = Celery("soulbox", task_cls=CountedTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.celeryd_init.connect
@signals.beat_init.connect
def _start_safely(**_sender: object) -> None:
    """Have the services up and safe before the first task or tick."""
    start_background_process()


@signals.worker_process_init.connect
def _trace_worker(**_sender: object) -> None:
    """Trace in each of the worker's children: what sends does not come along in a fork."""
    start_tracing("worker")


@signals.worker_process_shutdown.connect
def _send_rest_of_traces(**_sender: object) -> None:
    send_rest()


@signals.beat_init.connect
def _trace_beat(**_sender: object) -> None:
    start_tracing("beat")


@signals.task_prerun.connect
def _name_task(
    task_id: str, task: Task[Any, Any], args: Any = (), kwargs: Any = None, **_sender: object
) -> None:
    """Let what is logged meanwhile say in which task, and about whom."""
    bind_contextvars(task=task.name, task_id=task_id, **_ids(task, args, kwargs or {}))


@signals.task_prerun.connect
def _begin_outside_transactions(task: Task[Any, Any], **_sender: object) -> None:
    """Forget a connection that the task before was cut off in, as it ended a transaction.

    A time limit strikes at any line. Django then takes that block for open for ever, and every
    later task of the process would fail.
    """
    if task.request.is_eager:
        return
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            connection.close()
            del connections[connection.alias]


@signals.task_postrun.connect
def _forget_task(
    task: Task[Any, Any], args: Any = (), kwargs: Any = None, **_sender: object
) -> None:
    unbind_contextvars("task", "task_id", *_ids(task, args, kwargs or {}))


def _ids(task: Task[Any, Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the ids that a task is given, by their names; nothing else it is given is told."""
    try:
        given = inspect.signature(task.run).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return {}
    return {name: value for name, value in given.items() if name.endswith("_id")}


def _every(task: str, *args: str, seconds: float, queue: str) -> dict[str, object]:
    # A tick nobody took within its own interval is worth nothing: the next one is there.
    options = {"queue": queue, "expires": seconds}
    return {"task": task, "args": args, "schedule": seconds, "options": options}


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
    "choose told accounts": _every(
        "metering.tasks.choose_told_accounts", seconds=5 * 60, queue="default"
    ),
    "take figures": _every("soulbox.tasks.take_figures", seconds=60, queue="default"),
    "clean up metering": _every("metering.tasks.clean_up", seconds=24 * 60 * 60, queue="default"),
    "audit usage": _every("metering.tasks.audit_usage", seconds=24 * 60 * 60, queue="default"),
} | {
    f"canary of {queue}": _every(
        "soulbox.tasks.sing", queue, seconds=CANARY_INTERVAL_S, queue=queue
    )
    for queue in QUEUES
}
