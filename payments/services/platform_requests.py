"""What the platform is asked to do with an account's sandboxes: asked until it has said yes."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from billing.models import Account
from metering.log_lines import log_committed
from payments.models import PlatformRequest
from payments.platform_hook import HookError, HookRequest, post
from payments.services.pausing import pause_after

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=45)
"""Longer than the hook's time-out."""
REQUESTS_A_SWEEP = 200
TRIES_BEFORE_ALARM = 5
"""So often in vain, and a person is told by the log."""
LONGEST_ERROR = 500
_WAITING = Q(accepted_at__isnull=True, replaced_at__isnull=True)


def ask_platform(
    account: Account, action: PlatformRequest.Action, *, reason: str, now: datetime
) -> PlatformRequest:
    """Write down what the platform is to be asked, in place of what it has not accepted yet.

    The caller has locked the account.
    """
    PlatformRequest.objects.filter(_WAITING, account=account).update(replaced_at=now)
    event = "resumed" if action == PlatformRequest.Action.RESUME else "suspended"
    log_committed(logger, f"account {event}", account_id=account.pk, reason=reason)
    return PlatformRequest.objects.create(
        account=account, action=action, reason=reason, requested_at=now, try_at=now
    )


def due_requests(now: datetime, *, account_id: UUID | None = None) -> list[int]:
    """Return the requests that are due, of one account or of all, longest waiting first."""
    if not settings.PLATFORM_HOOK_URL:
        return []
    rows = _due(now).order_by("try_at", "pk")
    if account_id is not None:
        rows = rows.filter(account=account_id)
    return list(rows.values_list("pk", flat=True)[:REQUESTS_A_SWEEP])


def send_request(request_id: int, *, now: datetime) -> bool:
    """Ask the platform, if the request is due and nobody else does; return whether it said yes.

    Safe to repeat: the platform knows a request by its id. A request waits while an earlier one
    of the account is on its way, so that the last one asked is the last one heard.
    """
    claimed = _due(now).filter(pk=request_id).update(claimed_until=now + LEASE)
    if not claimed:
        return False
    request = PlatformRequest.objects.get(pk=request_id)
    try:
        post(
            HookRequest(
                id=request.pk,
                account_id=request.account_id,
                action=request.action,
                reason=request.reason,
                requested_at=request.requested_at,
            ),
            url=settings.PLATFORM_HOOK_URL,
            secret=settings.PLATFORM_HOOK_SECRET,
            now=now,
        )
    except HookError as error:
        _ask_later(request, error, now=now)
        return False
    PlatformRequest.objects.filter(pk=request.pk).update(
        accepted_at=now, claimed_until=None, tries=F("tries") + 1, last_error=""
    )
    return True


def _due(now: datetime) -> QuerySet[PlatformRequest]:
    before = PlatformRequest.objects.filter(
        account=OuterRef("account"), pk__lt=OuterRef("pk"), claimed_until__gt=now
    )
    return PlatformRequest.objects.filter(
        _WAITING,
        ~Exists(before),
        Q(claimed_until__isnull=True) | Q(claimed_until__lte=now),
        try_at__lte=now,
    )


def _ask_later(request: PlatformRequest, error: HookError, *, now: datetime) -> None:
    level = logging.ERROR if request.tries + 1 >= TRIES_BEFORE_ALARM else logging.WARNING
    logger.log(
        level,
        "the platform did not accept a request: %s",
        error,
        extra={"request_id": request.pk, "account_id": str(request.account_id)},
    )
    PlatformRequest.objects.filter(pk=request.pk).update(
        tries=F("tries") + 1,
        try_at=now + pause_after(request.tries),
        claimed_until=None,
        last_error=str(error)[:LONGEST_ERROR],
    )
