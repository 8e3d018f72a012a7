"""Collects what the month's invoices ask for, from a provider whose calls fail by chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.test import Client

from payments.models import Payment
from payments.provider import ProviderError
from payments.services.customers import ensure_customer
from payments.services.dunning_steps import (
    refresh_out_of_step,
    retry_on_new_cards,
    take_due_steps,
)
from payments.services.overpaid import settle_credited
from payments.services.providing import provider
from payments.services.reconciling import begin_reconciliation, take_look
from payments.services.refunding import due_refunds, take_refund_step
from payments.services.refunds import Proposal, propose_refund
from tests.faults.month.script import DAY, HOUR
from tests.faults.month.world import World
from tests.faults.payment_month import FAULTS, HELD_S, LONG_S, SHORT_S
from tests.local_stripe import LocalStripe
from tests.payments.event_story import ENDPOINT, tell
from tests.payments.month import collect

CENT = Decimal("0.01")
WEBHOOKS_DROPPED = 0.3
REFUNDED_AFTER = 9 * DAY
CALM_DAYS = 4


def collect_all(world: World, stripe: LocalStripe) -> None:
    """Go through the days after the first invoices, and bill and collect the second period."""
    stripe.webhooks(ENDPOINT, when="held")
    stripe.set_clock(world.now.timestamp())
    for customer in world.month.customers:
        provider_id = ensure_customer(customer.account, now=world.now)
        if customer.card:
            stripe.attach(provider_id, customer.card)
    heard: set[str] = set()
    paid_from = world.now
    last = world.month.last_close + 2 * DAY
    with _failing(world, stripe):
        while world.now < last:
            world.now = min(world.now + _step(world.now - paid_from), last)
            _take_day(world, stripe, heard)
            if world.now > paid_from + REFUNDED_AFTER:
                _refund(world)
    with world.calm():
        for _ in range(CALM_DAYS):
            world.now += DAY
            _take_day(world, stripe, heard)
            # Who was first asked for money by the second invoice may have paid just now.
            _refund(world)
        _reconcile(world, since=last)
        _take_day(world, stripe, heard)


def _step(since: timedelta) -> timedelta:
    """Return how long nobody looks: a while at first, and days when retries are days apart."""
    if since < DAY:
        return 6 * HOUR
    return DAY if since < 4 * DAY else 3 * DAY


@contextmanager
def _failing(world: World, stripe: LocalStripe) -> Iterator[None]:
    """Let the provider's calls fail while it goes on, if anything is to fail."""
    if not world.chances.kill:
        yield
        return
    stripe.random_faults(world.month.seed, FAULTS, seconds=HELD_S)
    settings.STRIPE_TIMEOUT_S = SHORT_S
    yield
    world.faults["provider"] += sum(1 for call in stripe.log() if call["fault"])
    stripe.clear_faults()
    settings.STRIPE_TIMEOUT_S = LONG_S


def _take_day(world: World, stripe: LocalStripe, heard: set[str]) -> None:
    stripe.set_clock(world.now.timestamp())
    world.fold()
    world.sweep()
    now = world.now

    def sweeps() -> None:
        refresh_out_of_step(now)
        retry_on_new_cards(now)
        take_due_steps(now)
        collect(now, until=now + timedelta(seconds=30))
        for refund in due_refunds(now):
            take_refund_step(refund, now=now)
        settle_credited(now)

    world.work(sweeps)
    _hear(world, heard)


def _hear(world: World, heard: set[str]) -> None:
    """Be told by webhooks of what is new: some are lost, some come twice, in any order."""
    try:
        every = list(provider().events(since=world.now - 2 * DAY, only_undelivered=False))
    except ProviderError:
        return
    new = [event for event in every if event.id not in heard]
    heard |= {event.id for event in new}
    kept = [event for event in new if world.draw.random() >= WEBHOOKS_DROPPED]
    told = kept + world.draw.sample(kept, k=len(kept) // 4)
    world.faults["webhook_dropped"] += len(new) - len(kept)
    world.faults["webhook_repeated"] += len(told) - len(kept)
    with patch("payments.views.webhooks.datetime", _clock_at(world.now)):
        tell(Client(), world.draw.sample(told, k=len(told)), now=world.now)


def _clock_at(moment: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            del tz
            return moment

    return Clock


def _refund(world: World) -> None:
    """Give some customers a part of their first payment back, once."""
    for customer in world.month.customers:
        payment = Payment.objects.filter(account=customer.account).order_by("pk").first()
        if payment is None or not customer.refunded_percent:
            continue
        amount = payment.amount * customer.refunded_percent / 100
        proposal = Proposal(amount.quantize(CENT, ROUND_DOWN), "Not content", "refund")
        propose_refund(payment.pk, proposal, now=world.now)


def _reconcile(world: World, *, since: datetime) -> None:
    """Compare both sides, as it is done every night."""
    look = begin_reconciliation(since=since - timedelta(hours=1), now=world.now)
    while take_look(look.pk, now=world.now):
        pass
