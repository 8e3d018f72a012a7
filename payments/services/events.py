"""Events of the provider: stored once, then applied from the stored row, by whom and when ever."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from payments.models import WebhookEvent
from payments.provider import BusyError, NoAnswerError, NotSetUpError, ProviderEvent
from payments.services import applying
from payments.services.providing import provider
from payments.stripe.client import API_VERSION
from payments.stripe.webhooks import kept

LEASE = timedelta(seconds=45)
"""So long a worker may take to apply an event before another one tries."""
WAITS = (
    timedelta(seconds=15),
    *(timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 360, 720, 1440)),
)
"""After the first failure, the second, and so on; the next one is the last: about two days."""
MOST_TRIES = len(WAITS) + 1
EVENTS_A_SWEEP = 500
LONGEST_REASON = 500
_WAITING = Q(status=WebhookEvent.Status.RECEIVED)
# Of secret and restricted keys; another key, as a local server's, is of no known mode.
_MODES = {"sk_live_": True, "rk_live_": True, "sk_test_": False, "rk_test_": False}
_INSERT = """
INSERT INTO payments_webhookevent (
    event_id, type, object_type, object_id, api_version, is_live_mode, source,
    happened_at, received_at, body, status, result, tries, try_at
) VALUES (
    %(event_id)s, %(type)s, %(object_type)s, %(object_id)s, %(api_version)s, %(is_live_mode)s,
    %(source)s, %(happened_at)s, %(now)s, %(body)s, %(status)s, %(result)s, 0, %(now)s
) ON CONFLICT (event_id) DO NOTHING
"""
_OUT_OF_REACH = (NoAnswerError, BusyError, NotSetUpError)

logger = logging.getLogger(__name__)


def receive_event(
    event: ProviderEvent, *, source: WebhookEvent.Source, now: datetime
) -> WebhookEvent.Status:
    """Store an event and return what becomes of it: it waits to be applied, or is ignored.

    Safe to repeat: the provider's id is the key, and the first one's row stays as it is.
    """
    why = _why_ignored(event.type, is_live_mode=event.is_live_mode)
    status = WebhookEvent.Status.IGNORED if why else WebhookEvent.Status.RECEIVED
    columns: dict[str, str | bool | datetime] = {
        "event_id": event.id,
        "type": event.type,
        "object_type": event.object_type[:64],
        "object_id": event.object_id[:255],
        "api_version": event.api_version[:32],
        "is_live_mode": event.is_live_mode,
        "source": source,
        "happened_at": event.happened_at,
        "now": now,
        "body": json.dumps(kept(event.body)),
        "status": status,
        "result": why,
    }
    with connection.cursor() as cursor:
        # One statement, without the transaction that bulk_create opens: the provider waits.
        cursor.execute(_INSERT, columns)
    return status


def fetch_event(event_id: str, *, now: datetime) -> WebhookEvent.Status:
    """Ask the provider for an event and store it, as if it had come. Raises ProviderError."""
    event = provider().event(event_id)
    return receive_event(event, source=WebhookEvent.Source.FETCHED, now=now)


def due_events(now: datetime) -> list[str]:
    """Return the ids of the events that are to be applied, those that wait longest first."""
    rows = WebhookEvent.objects.filter(_due(now)).order_by("try_at", "pk")
    return list(rows.values_list("event_id", flat=True)[:EVENTS_A_SWEEP])


def next_due_event(now: datetime) -> str | None:
    """Return the event that waits longest, of those that nobody is in the way of; None: none."""
    taken = WebhookEvent.objects.filter(
        _WAITING, object_id=OuterRef("object_id"), claimed_until__gt=now
    )
    rows = WebhookEvent.objects.filter(_due(now), ~Exists(taken)).order_by("try_at", "pk")
    return rows.values_list("event_id", flat=True).first()


def apply_event(event_id: str, *, now: datetime) -> bool:
    """Apply a stored event, if it is due and nobody has it or another one about its object.

    Returns whether the provider is worth another event: False when it is out of reach. Safe to
    repeat; a worker that dies in it is followed by another when its lease is over.
    """
    event = claim_event(event_id, now=now)
    return event is None or _apply(event, now=now)


def claim_event(event_id: str, *, now: datetime) -> WebhookEvent | None:
    """Return the event, nobody else's for the time of the lease, or None when it is not free.

    One event about an object at a time: of two readings the older one would count if it were
    written down later.
    """
    event = WebhookEvent.objects.filter(_due(now), event_id=event_id).only("object_id").first()
    if event is None:
        return None
    with transaction.atomic():
        beside = WebhookEvent.objects.filter(_WAITING, object_id=event.object_id)
        # Whoever claims one of them has to wait here, and then sees our claim.
        claims = list(
            beside.select_for_update().order_by("pk").values_list("claimed_until", flat=True)
        )
        if any(until is not None and until > now for until in claims):
            return None
        claimed = WebhookEvent.objects.filter(_due(now), event_id=event_id).update(
            claimed_until=now + LEASE, tries=F("tries") + 1
        )
    return WebhookEvent.objects.get(event_id=event_id) if claimed else None


def give_up_events(now: datetime) -> int:
    """Give up events whose worker died in the last try; return how many. Safe to repeat."""
    spent = WebhookEvent.objects.filter(_WAITING, tries__gte=MOST_TRIES, claimed_until__lte=now)
    return spent.update(
        status=WebhookEvent.Status.FAILED,
        claimed_until=None,
        result="Whatever applied it ended before it was done, each time.",
    )


def replay_event(event_id: str, *, now: datetime) -> bool:
    """Let a stored event be applied again, by the next who looks; return whether it will be.

    False: somebody is applying it at this moment. Raises WebhookEvent.DoesNotExist.
    """
    with transaction.atomic():
        event = WebhookEvent.objects.select_for_update().get(event_id=event_id)
        if event.claimed_until and event.claimed_until > now:
            return False
        event.status, event.result = WebhookEvent.Status.RECEIVED, ""
        event.applied_at = event.claimed_until = None
        event.tries, event.try_at = 0, now
        event.save(
            update_fields=["status", "result", "applied_at", "claimed_until", "tries", "try_at"]
        )
    return True


def _due(now: datetime) -> Q:
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    return _WAITING & free & Q(try_at__lte=now, tries__lt=MOST_TRIES)


def _why_ignored(event_type: str, *, is_live_mode: bool) -> str:
    """Return why an event of this kind changes nothing here; empty: it may."""
    mode = next(
        (live for of, live in _MODES.items() if settings.STRIPE_API_KEY.startswith(of)), None
    )
    if mode is not None and mode != is_live_mode:
        said, ours = ("live", "test") if is_live_mode else ("test", "live")
        return f"It is of {said} mode, and STRIPE_API_KEY is a key of {ours} mode."
    if not applying.is_known(event_type):
        return "Nothing is done about events of this kind."
    return ""


def _apply(event: WebhookEvent, *, now: datetime) -> bool:
    """Apply a claimed event; return whether the provider is worth another one."""
    if why := _why_ignored(event.type, is_live_mode=event.is_live_mode):
        _end(event, applying.Outcome(is_applied=False, result=why), now=now)
        return True
    try:
        outcome = applying.apply(event, now=now)
    except SoftTimeLimitExceeded:
        # It tells the task to end, and nothing of the event.
        raise
    except _OUT_OF_REACH as error:
        logger.warning("event waits: %s", error, extra={"event_id": event.event_id})
        _try_later(event, error, now=now)
        return False
    except Exception as error:
        if not connection.is_usable():
            raise
        # Whatever it is, it is this event's alone: the others are applied all the same.
        logger.exception("event was not applied", extra={"event_id": event.event_id})
        _try_later(event, error, now=now)
        return True
    _end(event, outcome, now=now)
    return True


def _end(event: WebhookEvent, outcome: applying.Outcome, *, now: datetime) -> None:
    result = outcome.result
    if event.api_version != API_VERSION:
        # Its body may have another shape; what was taken over was read in ours.
        result += f" It came in version {event.api_version or 'unknown'}, ours is {API_VERSION}."
    if outcome.is_applied:
        _ours(event).update(
            status=WebhookEvent.Status.APPLIED, applied_at=now, claimed_until=None, result=result
        )
    else:
        _ours(event).update(status=WebhookEvent.Status.IGNORED, claimed_until=None, result=result)


def _try_later(event: WebhookEvent, error: Exception, *, now: datetime) -> None:
    reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON].replace("\x00", "")
    if event.tries >= MOST_TRIES:
        logger.error("event is given up: %s", reason, extra={"event_id": event.event_id})
        _ours(event).update(status=WebhookEvent.Status.FAILED, claimed_until=None, result=reason)
        return
    _ours(event).update(claimed_until=None, result=reason, try_at=now + WAITS[event.tries - 1])


def _ours(event: WebhookEvent) -> QuerySet[WebhookEvent]:
    """Return the row, unless the lease ran out and another worker has it now."""
    return WebhookEvent.objects.filter(_WAITING, pk=event.pk, claimed_until=event.claimed_until)
