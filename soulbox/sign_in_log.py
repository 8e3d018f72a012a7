"""Sign-ins that failed, in the log."""

from __future__ import annotations

import logging

from django.contrib.auth.signals import user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

logger = logging.getLogger(__name__)


@receiver(user_login_failed, dispatch_uid="log failed sign-ins")
def log_failure(request: HttpRequest | None = None, **_sender: object) -> None:
    """Tell from where. Not the name: people type passwords there."""
    address = request.META.get("REMOTE_ADDR", "") if request else ""
    logger.warning("sign-in failed", extra={"address": address})
