"""Where the provider tells what happened: verified, stored, answered; applied by a worker."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from payments.hurrying import hurry
from payments.models import WebhookEvent
from payments.services.events import receive_event
from payments.signatures import SignatureRefusedError, check_signature
from payments.stripe.webhooks import NotAnEventError, read_event
from payments.tasks import apply_event

LONGEST_BODY = 512 * 1024
"""Bytes: twice what Stripe says an event takes at most."""

logger = logging.getLogger(__name__)


class _RefusedError(Exception):
    """The request is answered with this status and this sentence, and nothing is stored."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@csrf_exempt
@require_POST
def stripe_webhook(request: HttpRequest) -> HttpResponse:
    """Store what Stripe says happened and answer 200; whether it was known makes no difference.

    Who sends it is known by the signature of the body alone: no key, no session, any content type.
    """
    now = datetime.now(UTC)
    try:
        body = _verified_body(request, now=now)
        event = read_event(body)
        status = receive_event(event, source=WebhookEvent.Source.WEBHOOK, now=now)
    except _RefusedError as refusal:
        return _refuse(refusal.status, str(refusal))
    except SignatureRefusedError as error:
        return _refuse(400, str(error))
    except NotAnEventError as error:
        return _refuse(400, str(error))
    except RecursionError:
        return _refuse(400, "The event is nested too deep.")
    except OperationalError:
        logger.exception("webhook is not stored")
        # Stripe sends it again.
        return _refuse(503, "It cannot be stored now.")
    if status == WebhookEvent.Status.RECEIVED:
        transaction.on_commit(partial(hurry, apply_event, event.id))
    return _answer(200, "Stored.")


def _verified_body(request: HttpRequest, *, now: datetime) -> bytes:
    """Return the body, which is as it was signed. Raises _RefusedError, SignatureRefusedError."""
    if not settings.STRIPE_WEBHOOK_SECRETS:
        raise _RefusedError(503, "STRIPE_WEBHOOK_SECRET is not set, so nothing can be verified.")
    # Without a length Django reads nothing, and with one no more than that.
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > LONGEST_BODY:
        raise _RefusedError(413, f"The body is longer than {LONGEST_BODY} bytes.")
    try:
        body = request.body
    except UnreadablePostError:
        raise _RefusedError(400, "The body ended too early.") from None
    if not body:
        raise _RefusedError(400, "The body is empty.")
    check_signature(
        request.headers.get("Stripe-Signature", ""),
        body,
        secrets=settings.STRIPE_WEBHOOK_SECRETS,
        now=now,
    )
    return body


def _refuse(status: int, reason: str) -> HttpResponse:
    logger.warning("webhook is refused: %s", reason)
    return _answer(status, reason)


def _answer(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", content_type="text/plain; charset=utf-8", status=status)
