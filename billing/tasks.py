from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from billing import services


@shared_task(name="billing.tasks.sweep_billing")
def sweep_billing() -> None:
    """Do what has become due since the last sweep: credits, drafts, final invoices, top-ups."""
    now = datetime.now(UTC)
    services.grant_due_credits(now)
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)
    services.expire_due_credits(now)
    services.request_due_top_ups(now)
