"""The same story told by webhooks in many ways ends the same, whatever came when and how often.

`make webhook-orders` tells 200 stories; `make webhook-orders SEED=123` tells one again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import Random

import pytest
from django.db import connection, transaction
from django.test import Client

from payments.models import PaymentMethod, WebhookEvent
from payments.provider import ProviderEvent
from payments.services import applying
from payments.services.applying import Outcome
from payments.services.reconciling import begin_reconciliation, take_look
from tests.local_stripe import LocalStripe
from tests.payments.event_story import ChangesCards, PaysLate, Refunded, Story, begin, state, tell
from tests.payments.month import BILLED

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(36000)]

# The same stories each time, but for those that are asked for by number.
SEEDS = int(os.environ.get("WEBHOOK_SEEDS", "25"))
FIRST = int(time.time()) if "WEBHOOK_SEEDS" in os.environ else 1
if seed := os.environ.get("WEBHOOK_SEED"):
    FIRST, SEEDS = int(seed), 1
LATER = BILLED + timedelta(hours=1)
COPIES = (1, 1, 2, 5)
DROPPED = 0.3
Events = list[ProviderEvent]
WAYS: dict[str, Callable[[Events, Random], Events]] = {
    "twice": lambda events, _: events * 2,
    "five times": lambda events, _: [event for event in events for _ in range(5)],
    "reversed": lambda events, _: events[::-1],
    "shuffled": lambda events, random: random.sample(events, k=len(events)),
    "five times, shuffled": lambda events, random: random.sample(events * 5, k=5 * len(events)),
}


@contextmanager
def undone() -> Iterator[None]:
    """Take back what is written inside, after the constraints of a commit were looked at.

    A savepoint by hand: inside a block of Django's, services that begin a durable one refuse to.
    """
    here = transaction.savepoint()
    yield
    connection.check_constraints()
    transaction.savepoint_rollback(here)


@pytest.fixture(autouse=True)
def _it_is_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return LATER

    monkeypatch.setattr("payments.views.webhooks.datetime", Clock)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_story_ends_the_same_however_it_is_told(seed: int, stripe: LocalStripe) -> None:
    story = begin(stripe, seed)
    with undone():
        told = tell_as_it_happens(story)
        as_it_happened = state()
    with undone():
        tell(Client(), told, now=LATER)
        in_order = state()
        reconcile()
        assert state() == in_order
    assert in_order["not done"] == []
    assert as_it_happened == in_order
    # Of what changes nothing one telling is enough; it takes as long as the others.
    told = [event for event in told if applying.is_known(event.type)]
    way = list(WAYS)[seed % len(WAYS)]
    with undone():
        tell(Client(), WAYS[way](told, story.random), now=LATER)
        assert state() == in_order, way
    with undone():
        kept = [event for event in told if story.random.random() >= DROPPED]
        tell(Client(), story.random.sample(kept, k=len(kept)), now=LATER)
        reconcile()
        assert state() == in_order


def reconcile() -> None:
    """Compare both sides, as it is done every night."""
    look = begin_reconciliation(since=BILLED - timedelta(hours=1), now=LATER)
    while take_look(look.pk, now=LATER):
        pass
    look.refresh_from_db()
    assert look.ended_at
    assert look.error == ""


def tell_as_it_happens(story: Story) -> Events:
    """Tell of things soon or late, once or up to five times; return the events in order."""
    told: Events = []
    waiting: Events = []
    for _ in story.goes_on():
        new = story.new_events()
        told += new
        waiting += [one for one in new for _ in range(_copies(one, story))]
        story.random.shuffle(waiting)
        sent = story.random.randint(0, len(waiting))
        tell(Client(), waiting[:sent], now=LATER)
        waiting = waiting[sent:]
    tell(Client(), waiting, now=LATER)
    return told


def _copies(event: ProviderEvent, story: Story) -> int:
    return story.random.choice(COPIES) if applying.is_known(event.type) else 1


def test_events_that_are_taken_at_their_word_end_it_differently(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what would come of it if an event's body counted, as it came."""

    def believe(event: WebhookEvent, now: datetime) -> Outcome:
        del now
        settings = event.body["data"]["object"]["invoice_settings"]
        cards = PaymentMethod.objects.filter(account__customer__provider_id=event.object_id)
        cards.update(is_default=False)
        cards.filter(
            provider_id=settings["default_payment_method"], removed_at__isnull=True
        ).update(is_default=True)
        return Outcome(is_applied=True, result="Believed.")

    story = begin(stripe, FIRST, [ChangesCards])
    told = [event for _ in story.goes_on() for event in story.new_events()]
    tell(Client(), told, now=LATER)
    monkeypatch.setitem(applying._STEPS, "customer.updated", believe)
    changes = [event for event in told if event.type == "customer.updated"]
    tell(Client(), changes, now=LATER)
    in_order = state()
    tell(Client(), changes[::-1], now=LATER)
    assert state() != in_order


def test_events_that_nobody_tells_are_missing(stripe: LocalStripe) -> None:
    story = begin(stripe, FIRST, [PaysLate, Refunded])
    told = [event for _ in story.goes_on() for event in story.new_events()]
    with undone():
        untold = state()
    # Most is told, and what is missing is missing still.
    with undone():
        tell(Client(), told[: len(told) // 2], now=LATER)
        half = state()
    tell(Client(), told, now=LATER)
    assert state() not in (untold, half)
