from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

logger = logging.getLogger(__name__)

One = TypeVar("One")


def try_each(ones: Iterable[One], work: Callable[[One], object]) -> int:
    """Do the work for each, so that one that fails stops only itself; return for how many.

    What failed is logged, and is there again at the next sweep.
    """
    done = 0
    for one in ones:
        try:
            work(one)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            # A lost connection says nothing about this one.
            if not connection.is_usable():
                raise
            logger.exception("sweep goes on without one", extra={"subject": str(one)})
        else:
            done += 1
    return done
