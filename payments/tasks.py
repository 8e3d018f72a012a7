from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError

from payments.hurrying import hurry
from payments.models import Collection
from payments.provider import NotSetUpError, ProviderError
from payments.services import events
from payments.services.capping import follow_cap, follow_caps
from payments.services.collecting import set_aside, take_step
from payments.services.customers import account_of_event, tell_customers
from payments.services.dunning_steps import (
    refresh_out_of_step,
    retry_on_new_cards,
    take_due_steps,
)
from payments.services.method_changes import detach_removed
from payments.services.notices import tell_of_expiring_cards
from payments.services.overpaid import settle_credited
from payments.services.platform_requests import due_requests, send_request
from payments.services.providing import is_set_up
from payments.services.reconciling import due_reconciliation, take_look
from payments.services.refunding import due_refunds, take_refund_step
from payments.services.subscriptions import bring_subscriptions_in_step
from payments.services.sweeps import begin_due_collections, due_steps, due_steps_of
from payments.services.top_ups import collect_due_top_ups, take_back_failed_top_ups

HINT_EXPIRES_S = 60
MOST_STEPS = 20
"""Of a collection in one task: making and paying it takes five."""
EVENTS_A_HINT = 20
"""Whoever is hinted at one event goes on with what else is due: not each has a hint."""
SWEEPING_TIME = timedelta(seconds=30)
"""A sweep begins nothing after it; the longest wait for the provider comes on top."""
COMPARING_TIME = timedelta(minutes=3)
"""A task that compares both sides begins no window after it."""

logger = logging.getLogger(__name__)


@shared_task(name="payments.tasks.sweep_collections")
def sweep_collections() -> None:
    """Begin to collect what is due, and have each step that is due taken by some worker."""
    now = datetime.now(UTC)
    begin_due_collections(now)
    for collection_id in due_steps(now):
        # The next sweep finds again what nobody took until then.
        collect.apply_async((str(collection_id),), queue="payments", expires=HINT_EXPIRES_S)


@shared_task(name="payments.tasks.collect")
def collect(collection_id: str) -> None:
    """Take a collection's steps until nothing more can be done at once."""
    for _ in range(MOST_STEPS):
        if not _has_more(UUID(collection_id)):
            break
    # Paid, it may have ended the account's suspension.
    _hurry_platform(Collection.objects.values_list("account", flat=True).get(pk=collection_id))


def _has_more(collection_id: UUID) -> bool:
    """Take a step of a collection; one that fails unexpectedly is logged and set aside."""
    try:
        return take_step(collection_id, now=datetime.now(UTC))
    except (SoftTimeLimitExceeded, OperationalError, NotSetUpError):
        # They say nothing about the collection.
        raise
    except Exception as error:
        logger.exception("step failed", extra={"collection_id": str(collection_id)})
        set_aside(collection_id, error, now=datetime.now(UTC))
        return False


@shared_task(name="payments.tasks.sweep_dunning")
def sweep_dunning() -> None:
    """Do what is due about invoices whose payment failed, and ask the platform what waits."""
    now = datetime.now(UTC)
    refresh_out_of_step(now)
    retry_on_new_cards(now)
    take_due_steps(now)
    follow_caps(now)
    for request_id in due_requests(now):
        send_platform_request.apply_async(
            (str(request_id),), queue="payments", expires=HINT_EXPIRES_S
        )


@shared_task(name="payments.tasks.send_platform_request")
def send_platform_request(request_id: str) -> None:
    """Ask the platform to stop or resume an account's sandboxes."""
    send_request(int(request_id), now=datetime.now(UTC))


@shared_task(name="payments.tasks.follow_cap")
def follow_cap_of(account_id: str) -> None:
    """Ask the platform what follows from an account's caps, sooner than the sweep would."""
    follow_cap(UUID(account_id), now=datetime.now(UTC))
    for request_id in due_requests(datetime.now(UTC), account_id=UUID(account_id)):
        send_request(request_id, now=datetime.now(UTC))


def hurry_cap(sender: object, *, account_id: UUID, **_said: object) -> None:
    """Have what follows from a cap done soon. Billing's signals of caps are its hints."""
    del sender
    hurry(follow_cap_of, str(account_id))


@shared_task(name="payments.tasks.tell_expiring_cards")
def tell_expiring_cards() -> None:
    """Write the e-mails about cards that soon expire."""
    tell_of_expiring_cards(datetime.now(UTC))


def hurry_account(account_id: UUID) -> None:
    """Have what is due of an account done soon: the sweeps would, up to 15 s later."""
    for collection_id in due_steps_of(account_id, datetime.now(UTC)):
        hurry(collect, str(collection_id))
    _hurry_platform(account_id)


def _hurry_platform(account_id: UUID) -> None:
    for request_id in due_requests(datetime.now(UTC), account_id=account_id):
        hurry(send_platform_request, str(request_id))


@shared_task(name="payments.tasks.tell_customers")
def tell_of_customers() -> None:
    """Tell the provider what has changed of accounts, and what cards were removed."""
    now = datetime.now(UTC)
    tell_customers(now)
    detach_removed(now)


@shared_task(name="payments.tasks.sweep_subscriptions")
def sweep_subscriptions() -> None:
    """Do at the provider what billing wants of subscriptions whose fee it collects."""
    bring_subscriptions_in_step(datetime.now(UTC))


@shared_task(name="payments.tasks.sweep_events")
def sweep_events() -> None:
    """Apply the events that wait; stop at once where the provider is out of reach."""
    started = datetime.now(UTC)
    events.give_up_events(started)
    for event_id in events.due_events(started):
        now = datetime.now(UTC)
        if now - started > SWEEPING_TIME or not events.apply_event(event_id, now=now):
            return


@shared_task(name="payments.tasks.apply_event")
def apply_event(event_id: str) -> None:
    """Apply an event that just came, and what else is due, as for the same object."""
    due: str | None = event_id
    for _ in range(EVENTS_A_HINT):
        if due is None or not events.apply_event(due, now=datetime.now(UTC)):
            return
        # Another card is charged at once, and who has paid is let go on.
        if account_id := account_of_event(due):
            hurry_account(account_id)
        due = events.next_due_event(datetime.now(UTC))


@shared_task(name="payments.tasks.sweep_top_ups")
def sweep_top_ups() -> None:
    """Begin to collect the top-ups that wait, and give up those whose card failed."""
    now = datetime.now(UTC)
    take_back_failed_top_ups(now)
    collect_due_top_ups(now)


@shared_task(name="payments.tasks.sweep_refunds")
def sweep_refunds() -> None:
    """Ask for the refunds that were approved, and what became of those under way."""
    started = datetime.now(UTC)
    for refund_id in due_refunds(started):
        now = datetime.now(UTC)
        if now - started > SWEEPING_TIME:
            return
        take_refund_step(refund_id, now=now)


@shared_task(name="payments.tasks.reconcile", time_limit=280, soft_time_limit=270)
def reconcile() -> None:
    """Compare both sides once a day, a while at a time; most find that the day's look is done."""
    started = datetime.now(UTC)
    look = due_reconciliation(started) if is_set_up() else None
    while look and datetime.now(UTC) - started < COMPARING_TIME:
        try:
            if not take_look(look, now=datetime.now(UTC)):
                return
        except ProviderError as error:
            logger.warning("reconciliation waits: %s", error, extra={"reconciliation_id": look})
            return


@shared_task(name="payments.tasks.settle_money")
def settle_money() -> None:
    """Settle invoices that payments and credit notes together have paid."""
    settle_credited(datetime.now(UTC))
