"""Lines of the log about what happened: written once it did, and not if it is taken back."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.db import transaction


def log_committed(logger: logging.Logger, event: str, **fields: Any) -> None:
    """Log the event when the transaction at work is committed; at once outside of one.

    `fields` are ids and amounts: nothing about a person, no secret.
    """
    # The connection forgets it with a transaction that is rolled back.
    transaction.on_commit(partial(logger.info, event, extra=fields), robust=True)
