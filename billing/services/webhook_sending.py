"""Sends the deliveries that wait. The table is the work list; many may do it at once.

An endpoint is claimed by one worker for a while, and gets one delivery at a time: however slow or
broken it is, it keeps one place busy and no more. Those that are slow or fail share half of the
places, so that there are always some for the others. Threads only ask the network; whoever sends
reads and writes the tables by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, OuterRef, Q, Subquery

from billing.models import Delivery, Event, WebhookEndpoint
from billing.models.outgoing import ENABLED, LONGEST_EXCERPT, WAITING
from billing.services.webhook_endpoints import give_up_waiting
from billing.services.webhook_notices import tell_of_disabled
from billing.services.webhook_secrets import SecretLostError, keys_of
from billing.webhooks.addresses import UnsafeAddressError
from billing.webhooks.pauses import pause_after
from billing.webhooks.sender import SYSTEM, Answer, NotSentError, Ways, post
from billing.webhooks.signing import signed_headers

PLACES: Final = 32
"""Deliveries at once in one sweep."""
SLOW_PLACES: Final = 16
"""Of them for endpoints that are slow, or fail."""
SLOW_MS: Final = 2000
LOOK_EVERY: Final = timedelta(seconds=0.5)
"""For endpoints that have something due, while others are being sent to."""
SENDING_TIME: Final = timedelta(seconds=20)
"""A sweep sends nothing more after it; the time-out of what is on its way comes on top."""
LEASE: Final = timedelta(seconds=60)
"""Longer than a sweep lasts; after it another worker may send to an endpoint of one that died."""
FAILING_TIME: Final = timedelta(days=5)
"""An endpoint that has taken nothing for so long is disabled."""
GONE: Final = 410
"""An endpoint that answers it wants nothing any more."""
_SLOW: Final = Q(failing_since__isnull=False) | Q(last_took_ms__gt=SLOW_MS)

logger = logging.getLogger(__name__)
Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class _Outcome:
    answer: Answer | None
    error: str


@dataclass(frozen=True, slots=True)
class _Sent:
    """A delivery that is on its way: when it began, and whether it has a slow one's place."""

    delivery: Delivery
    began: datetime
    is_slow: bool


def send_due_webhooks(clock: Clock, *, ways: Ways = SYSTEM) -> int:
    """Send what is due for a while; return how many tries that were. Safe to repeat, and at once.

    Each delivery arrives at least once: a worker that dies after an answer lets it come again.
    """
    end = clock() + SENDING_TIME
    tries = 0
    running: dict[Future[_Outcome], _Sent] = {}
    with ThreadPoolExecutor(PLACES) as pool:

        def start(delivery: Delivery, *, is_slow: bool) -> None:
            now = clock()
            future = pool.submit(_post_of(delivery, ways, now=now))
            running[future] = _Sent(delivery, now, is_slow)

        look_at = clock()
        while True:
            now = clock()
            if now < end and (now >= look_at or not running):
                look_at = now + LOOK_EVERY
                for is_slow, most in ((False, PLACES - SLOW_PLACES), (True, SLOW_PLACES)):
                    taken = sum(sent.is_slow is is_slow for sent in running.values())
                    for delivery in claim_deliveries(now, most - taken, is_slow=is_slow):
                        start(delivery, is_slow=is_slow)
            if not running:
                return tries
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                sent = running.pop(future)
                tries += 1
                _record(sent, future.result(), now=clock())
                following = _next_of(sent, clock()) if clock() < end else None
                if following:
                    start(following, is_slow=sent.is_slow)
                else:
                    _release(sent.delivery)


def claim_deliveries(now: datetime, most: int, *, is_slow: bool) -> list[Delivery]:
    """Claim endpoints that nobody has; return of each the delivery that has waited longest.

    Of those that are slow or fail, or of the others.
    """
    if most <= 0:
        return []
    due = Delivery.objects.filter(WAITING, endpoint=OuterRef("pk"), try_at__lte=now)
    first = due.order_by("try_at", "pk")[:1]
    with transaction.atomic():
        free = (
            WebhookEndpoint.objects.filter(
                ENABLED,
                Q(claimed_until__isnull=True) | Q(claimed_until__lte=now),
                _SLOW if is_slow else ~_SLOW,
            )
            .annotate(due_id=Subquery(first.values("pk")), due_at=Subquery(first.values("try_at")))
            .filter(due_id__isnull=False)
            .order_by("due_at", "pk")
            .select_for_update(skip_locked=True)
        )
        claimed = {row.pk: row.due_id for row in free[:most]}
        WebhookEndpoint.objects.filter(pk__in=claimed).update(claimed_until=now + LEASE)
    found = Delivery.objects.filter(pk__in=claimed.values()).select_related("event", "endpoint")
    return list(found.order_by("try_at", "pk"))


def body_of(event: Event) -> bytes:
    """Return what is sent of an event, the same at each try."""
    timestamp = event.created_at.isoformat().replace("+00:00", "Z")
    whole = {
        "id": str(event.pk),
        "type": event.type,
        "timestamp": timestamp,
        "data": event.data,
    }
    return json.dumps(whole, separators=(",", ":")).encode()


def _post_of(delivery: Delivery, ways: Ways, *, now: datetime) -> Callable[[], _Outcome]:
    """Return what a thread is to do. It touches no table."""
    body = body_of(delivery.event)
    try:
        keys = keys_of(delivery.endpoint, now=now)
    except SecretLostError as error:
        return partial(_Outcome, None, str(error))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "SoulBox-Webhooks",
        **signed_headers(body, message_id=str(delivery.event_id), keys=keys, now=now),
    }
    url, allow_private = delivery.endpoint.url, settings.WEBHOOKS_ALLOW_PRIVATE

    def ask() -> _Outcome:
        try:
            return _Outcome(post(url, body, headers, allow_private=allow_private, ways=ways), "")
        except (UnsafeAddressError, NotSentError) as error:
            return _Outcome(None, str(error))

    return ask


def _next_of(sent: _Sent, now: datetime) -> Delivery | None:
    """Return the next delivery to the same endpoint, if its claim may be kept for it."""
    endpoint = WebhookEndpoint.objects.filter(ENABLED, pk=sent.delivery.endpoint_id)
    if sent.is_slow or not endpoint.filter(~_SLOW).update(claimed_until=now + LEASE):
        # Back into the queue: others have waited longer.
        return None
    due = Delivery.objects.filter(WAITING, endpoint=sent.delivery.endpoint_id, try_at__lte=now)
    return due.select_related("event", "endpoint").order_by("try_at", "pk").first()


def _release(delivery: Delivery) -> None:
    WebhookEndpoint.objects.filter(pk=delivery.endpoint_id).update(claimed_until=None)


def _record(sent: _Sent, outcome: _Outcome, *, now: datetime) -> None:
    """Write down what became of a try."""
    delivery, answer = sent.delivery, outcome.answer
    took_ms = (now - sent.began) // timedelta(milliseconds=1)
    # Somebody may have asked for it once more meanwhile: then it is sent once more.
    same = Delivery.objects.filter(WAITING, pk=delivery.pk, try_at=delivery.try_at)
    changes = {
        "attempts": F("attempts") + 1,
        "tried_at": now,
        "response_status": answer.status if answer else None,
        "response_excerpt": _excerpt(answer.body) if answer else "",
        "last_error": outcome.error[:300].replace("\x00", ""),
    }
    endpoint = WebhookEndpoint.objects.filter(pk=delivery.endpoint_id)
    if answer and answer.is_success:
        same.update(**changes, delivered_at=now)
        endpoint.update(failing_since=None, last_took_ms=took_ms)
        return
    pause = pause_after(delivery.attempts + 1, delivery_id=delivery.pk)
    if pause is None:
        same.update(**changes, given_up_at=now)
    else:
        same.update(**changes, try_at=now + pause)
    endpoint.filter(failing_since=None).update(failing_since=now)
    endpoint.update(last_took_ms=took_ms)
    if answer and answer.status == GONE:
        _disable(delivery, "It answered 410 Gone.", now=now)
    elif endpoint.filter(failing_since__lte=now - FAILING_TIME).exists():
        _disable(delivery, f"It took nothing for {FAILING_TIME.days} days.", now=now)


def _disable(delivery: Delivery, reason: str, *, now: datetime) -> None:
    with transaction.atomic():
        row = WebhookEndpoint.objects.select_for_update().get(pk=delivery.endpoint_id)
        if row.disabled_at or row.removed_at:
            return
        row.disabled_at, row.disabled_reason = now, reason
        row.save(update_fields=["disabled_at", "disabled_reason"])
        give_up_waiting(row, now=now)
        tell_of_disabled(row, now=now)
    logger.warning("webhook endpoint disabled: %s", reason, extra={"endpoint_id": row.pk})


def _excerpt(body: bytes) -> str:
    return body.decode("utf-8", "replace").replace("\x00", "")[:LONGEST_EXCERPT]
