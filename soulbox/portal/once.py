"""Forms that are sent twice, by a double click or a reload, and act once."""

from __future__ import annotations

import logging
import uuid
from uuid import UUID

from django.core.cache import cache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

KEPT_S = 24 * 60 * 60


def new_once() -> str:
    """Return what a form carries that acts once."""
    return str(uuid.uuid4())


def claim(account_id: UUID, what: str, once: str) -> bool:
    """Return whether a form is sent for the first time.

    Of forms whose service would act again. Without a cache each counts as the first: the button
    is out of use after the first click anyway.
    """
    try:
        return bool(cache.add(f"portal:once:{account_id}:{what}:{once[:64]}", 1, KEPT_S))
    except RedisError:
        logger.warning("a form's repeats are not known: the cache does not answer")
        return True
