"""Asks workers for the mails that let people in. Whether an address is known, only they look."""

from __future__ import annotations

import logging

from celery import Task
from django.conf import settings
from django.http import HttpRequest
from kombu.exceptions import OperationalError

from soulbox.portal import tasks

logger = logging.getLogger(__name__)

GOOD_FOR_S = 10 * 60
"""Who waited longer for a mail has asked again."""


def ask_for_password_reset(address: str, request: HttpRequest) -> None:
    """Have the link to a new password mailed to who has this address, if somebody does."""
    _ask(tasks.mail_password_reset, address, site_of(request))


def ask_for_sign_up(address: str, request: HttpRequest) -> None:
    """Have the link mailed with which this address signs up, or what else it can do."""
    _ask(tasks.mail_sign_up, address, site_of(request))


def site_of(request: HttpRequest) -> str:
    """Return the address of this site, to which a path is appended."""
    return settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")


def _ask(task: Task[..., None], *args: str) -> None:
    try:
        task.apply_async(args, retry=False, expires=GOOD_FOR_S)
    except OperationalError:
        # The page says the same: who gets no mail asks again.
        logger.exception("a mail cannot be asked for: the broker does not answer")
