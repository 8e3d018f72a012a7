"""Customers of last month, whom the running service bills and collects from by itself."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from threading import Event, Thread
from typing import Self
from urllib.request import Request, urlopen

from django.db import transaction

from billing import services
from billing.models import Account
from metering.models import Host, StreamCursor
from metering.period import Period
from payments.services.customers import ensure_customer
from tests.billing.usage import record_usage
from tests.local_stripe import LocalStripe

CPU_OF_36_DOLLARS = 3_000_000
VISA = "pm_card_visa"
CALL_EVERY_S = 2
DECLINED = "pm_card_chargeCustomerFail"


def last_month(now: datetime) -> Period:
    """Return the calendar month before this one."""
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period((end - timedelta(days=1)).replace(day=1), end)


def used_last_month(name: str, *, currency: str = "USD") -> Account:
    """Open an account that used something last month, and is due to be billed for it now."""
    now = datetime.now(UTC)
    month = last_month(now)
    with transaction.atomic():
        account = services.open_account(name=name, now=month.start, currency=currency)
        record_usage(account.pk, month.start + timedelta(days=1), cpu_s=CPU_OF_36_DOLLARS)
        # The machine it ran on is no more.
        Host.objects.filter(pk=account.pk).update(is_active=False)
        StreamCursor.objects.filter(host=account.pk).update(collected_until=now)
    return account


def pays_with(account: Account, token: str, stripe: LocalStripe) -> None:
    """Give the account a test card."""
    stripe.attach(ensure_customer(account.pk, now=datetime.now(UTC)), token)


class Visitor:
    """Somebody who calls the API again and again while the `with` block runs."""

    def __init__(self, url: str, key: str) -> None:
        self._request = Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - our own address
        self._is_over = Event()
        self._thread = Thread(target=self._call, name="visitor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _call(self) -> None:
        while not self._is_over.wait(CALL_EVERY_S):
            # It may be down at the moment.
            with suppress(OSError, HTTPException), urlopen(self._request, timeout=10) as answer:  # noqa: S310 - the same
                answer.read()
