from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from celery import shared_task
from django.core.cache import cache

from billing import services

ADDING_TIME = timedelta(minutes=1)
"""The desk begins no slice of the accounts after it; the next run goes on."""
BILLING_TIME = timedelta(seconds=45)
"""A sweep begins no batch of accounts after it but the first; one cut off would be done again."""
MESSAGES_A_SWEEP = 200
CHECKING_TIME = timedelta(minutes=1)
"""A run begins no batch of invoices after it; the next one goes on."""
ROUND = timedelta(days=1)
"""All final invoices are looked at once in it."""
SENDING_TIME = timedelta(seconds=30)
"""A sweep begins no e-mail after it; the longest wait for a server comes on top."""
WRITING_TIME = timedelta(seconds=10)
"""A sweep begins no batch of invoices' events after it."""
CAPPING_TIME = timedelta(seconds=13)
"""A look at budgets that cap begins no hundred of them after it; the next one goes on."""
FORGETTING_TIME = timedelta(minutes=1)
TURNS_A_RUN = 20
"""Of a hundred accounts each: about a minute's work."""
_NOTED_UP_TO = "billing.unpriced_usage_noted_up_to"
_LATE_NOTED_UP_TO = "billing.unbilled_late_usage_noted_up_to"
_CHECKED_UP_TO = "billing.conservation_checked_up_to"


@shared_task(name="billing.tasks.sweep_billing")
def sweep_billing() -> None:
    """Do what has become due since the last sweep: credits, drafts, final invoices, top-ups."""
    now = datetime.now(UTC)

    def has_time() -> bool:
        return datetime.now(UTC) - now < BILLING_TIME

    services.end_stalled_sessions()
    services.grant_due_credits(now)
    services.draft_due_invoices(now, has_time=has_time)
    services.finalise_due_invoices(now, has_time=has_time)
    services.request_due_top_ups(now)


@shared_task(name="billing.tasks.advance_closings")
def advance_closings() -> None:
    """Take accounts that are being closed on, as far as what they wait for has come."""
    services.advance_closings(datetime.now(UTC))


@shared_task(name="billing.tasks.expire_credits")
def expire_credits() -> None:
    """Let credit lapse that was given back after its time; the rest lapses as periods close."""
    services.expire_due_credits(datetime.now(UTC))


@shared_task(name="billing.tasks.note_unpriced_usage")
def note_unpriced_usage() -> None:
    """Note which usage of open periods has no price, of the accounts whose turn it is."""
    _take_turns(services.note_unpriced_usage, _NOTED_UP_TO)


@shared_task(name="billing.tasks.note_unbilled_late_usage")
def note_unbilled_late_usage() -> None:
    """Note which late usage no invoice can ask for, of the accounts whose turn it is."""
    _take_turns(services.note_unbilled_late_usage, _LATE_NOTED_UP_TO)


@shared_task(name="billing.tasks.keep_invoice_days")
def keep_invoice_days() -> None:
    """Keep what each day's usage cost of final invoices, while the usage is there."""
    started = datetime.now(UTC)
    while datetime.now(UTC) - started < CHECKING_TIME:
        if not services.keep_invoice_days(datetime.now(UTC)):
            return


@shared_task(name="billing.tasks.check_conservation")
def check_conservation() -> None:
    """Look whether final invoices still add up: all of them, once a day, a minute at a time."""
    started = datetime.now(UTC)
    # The cache may forget it: then a round begins again, which is a repeat and no harm.
    after, begun = cache.get(_CHECKED_UP_TO) or (None, None)
    if after is None:
        if begun and started - begun < ROUND:
            return
        begun = started
    while datetime.now(UTC) - started < CHECKING_TIME:
        after = services.check_conservation(now=started, after=after)
        cache.set(_CHECKED_UP_TO, (after, begun), timeout=None)
        if after is None:
            return


@shared_task(name="billing.tasks.add_up_desk")
def add_up_desk() -> None:
    """Add up what the desk shows of all accounts, those that were longest ago first."""
    started = datetime.now(UTC)
    while datetime.now(UTC) - started < ADDING_TIME:
        if not services.add_up_desk(now=datetime.now(UTC)):
            return


@shared_task(name="billing.tasks.sweep_mail")
def sweep_mail() -> None:
    """Write the e-mails that have become due, and send those that wait."""
    started = datetime.now(UTC)
    services.write_due_messages(started)
    services.give_up_old_messages(started)
    for _ in range(MESSAGES_A_SWEEP):
        now = datetime.now(UTC)
        if now - started > SENDING_TIME or not services.send_next_message(now):
            return


@shared_task(name="billing.tasks.sweep_webhooks")
def sweep_webhooks() -> None:
    """Write the events of invoices, and send what waits for customers' endpoints."""
    started = datetime.now(UTC)
    while services.write_invoice_events(datetime.now(UTC)):
        if datetime.now(UTC) - started > WRITING_TIME:
            break
    services.send_due_webhooks(lambda: datetime.now(UTC))


@shared_task(name="billing.tasks.forget_old_events")
def forget_old_events() -> None:
    """Delete events and deliveries that are older than they are kept."""
    started = datetime.now(UTC)
    while services.forget_old_events(datetime.now(UTC)):
        if datetime.now(UTC) - started > FORGETTING_TIME:
            return


@shared_task(name="billing.tasks.tell_reached_budgets")
def tell_reached_budgets() -> None:
    """Tell of thresholds that the cost of a period has reached, of the budgets in turn.

    Caps whose period is over are brought up to what it was billed, too.
    """
    now = datetime.now(UTC)
    services.measure_ended_caps(now)
    for _ in range(TURNS_A_RUN):
        if not services.tell_reached_budgets(now):
            return


@shared_task(name="billing.tasks.forget_old_calls")
def forget_old_calls() -> None:
    """Remove what calls with an Idempotency-Key were answered more than a day ago."""
    for _ in range(TURNS_A_RUN):
        if not services.forget_old_calls(datetime.now(UTC)):
            return


@shared_task(name="billing.tasks.look_at_caps")
def look_at_caps() -> None:
    """Look at budgets that cap and have something new, until none is left or time is up."""
    started = datetime.now(UTC)
    looked: set[int] = set()
    while datetime.now(UTC) - started < CAPPING_TIME:
        found = services.look_at_caps(datetime.now(UTC), but=looked)
        if not found:
            return
        looked.update(found)


def _take_turns(note: Callable[..., UUID | None], key: str) -> None:
    for _ in range(TURNS_A_RUN):
        # The cache may forget it: then a round begins again, which is a repeat and no harm.
        up_to = note(now=datetime.now(UTC), after=cache.get(key))
        cache.set(key, up_to, timeout=None)
        if up_to is None:
            return
