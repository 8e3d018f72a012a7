from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from celery import shared_task

from payments.services.collecting import take_step
from payments.services.customers import tell_customers
from payments.services.method_changes import detach_removed
from payments.services.sweeps import begin_due_collections, due_steps

MOST_STEPS = 20
"""Of a collection in one task: making and paying it takes five."""


@shared_task(name="payments.tasks.sweep_collections")
def sweep_collections() -> None:
    """Begin to collect what is due, and have each step that is due taken by some worker."""
    now = datetime.now(UTC)
    begin_due_collections(now)
    for collection_id in due_steps(now):
        collect.delay(str(collection_id))


@shared_task(name="payments.tasks.collect", queue="payments")
def collect(collection_id: str) -> None:
    """Take a collection's steps until nothing more can be done at once."""
    for _ in range(MOST_STEPS):
        if not take_step(UUID(collection_id), now=datetime.now(UTC)):
            return


@shared_task(name="payments.tasks.tell_customers")
def tell_of_customers() -> None:
    """Tell the provider what has changed of accounts, and what cards were removed."""
    now = datetime.now(UTC)
    tell_customers(now)
    detach_removed(now)
