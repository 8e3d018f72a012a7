"""What each process does first: have the services up, and refuse settings that lose money."""

from __future__ import annotations

import logging
import sys
import time

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, run_checks
from django.db import connections

from soulbox import embedded
from soulbox.checks import SILENT

logger = logging.getLogger(__name__)

LOOK_AGAIN_AFTER_S = 5
# To gunicorn: this worker cannot boot, so end instead of starting it over and over.
BOOT_ERROR = 3


class ServicesError(Exception):
    """The process must not run: a setting is unsafe. The message names it and the way out."""


def start_services() -> None:
    """Start the embedded PostgreSQL and Redis, unless the environment names others.

    Safe to repeat. Raises EmbeddedServiceError when they do not start.
    """
    if settings.EMBEDDED is not None:
        embedded.start(settings.EMBEDDED)


def refuse_unsafe_settings() -> list[str]:
    """Return a line for each server that does not answer, and so could not be looked at.

    Raises ServicesError when a setting is unsafe.
    """
    found = [
        message
        for message in run_checks(tags=[Tags.security, Tags.database], databases=["default"])
        if isinstance(message, Error) and (message.id or "").startswith("soulbox.")
    ]
    if unsafe := [_line(message) for message in found if message.id not in SILENT]:
        raise ServicesError("\n".join(unsafe))
    return [_line(message) for message in found]


def start_web_process() -> None:
    """Have the services up and safe, or end the process with a line that says what is not.

    Where a server does not answer the process goes on: it answers again when the server does.
    """
    try:
        start_services()
        silent = refuse_unsafe_settings()
    except (embedded.EmbeddedServiceError, ServicesError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(BOOT_ERROR)
    for line in silent:
        logger.warning(line)


def start_background_process() -> None:
    """Return when the services are up and safe; end the process when they are not safe.

    Nothing is metered or billed before the servers have been looked at, so this waits for
    one that does not answer, as the worker itself would for its broker.
    """
    try:
        start_services()
        while silent := refuse_unsafe_settings():
            for line in silent:
                logger.warning(line)
            time.sleep(LOOK_AGAIN_AFTER_S)
    except (embedded.EmbeddedServiceError, ServicesError) as error:
        sys.exit(str(error))
    # The connection was this process' own look; its children make theirs.
    connections.close_all()


def _line(message: CheckMessage) -> str:
    return f"{message.msg} {message.hint}"
