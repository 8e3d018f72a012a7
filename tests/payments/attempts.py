"""Payment attempts without a provider, for tests of what counts them."""

from __future__ import annotations

from datetime import datetime

from payments.models import Collection, PaymentAttempt
from tests.billing.usage import open_account


def attempt_that_ended(number: int, at: datetime, status: str) -> None:
    collection = Collection.objects.create(
        account=open_account(f"Payer {number}"),
        status=Collection.Status.VOID,
        amount=1,
        currency="USD",
        started_at=at,
        ended_at=at,
    )
    PaymentAttempt.objects.create(
        collection=collection,
        number=1,
        status=status,
        trigger=PaymentAttempt.Trigger.SCHEDULE,
        started_at=at,
        ended_at=at,
    )
