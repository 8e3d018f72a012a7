"""Work done by a process of its own, which may be killed outright in the middle of it."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection, connections

from payments.services import providing

Work = Callable[[], object]


def begin(
    work: Work, *, kill_after: int | None = None, calls_off: tuple[type[Exception], ...] = ()
) -> int:
    """Start a process that does the work and return its id.

    It kills itself at its nth statement. What `calls_off` names may stop it: it ends with 2.
    """
    # A connection that both sides of a fork used would be spoilt for both.
    connections.close_all()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # So would one to the provider be.
        providing._stripe.cache_clear()
        with _killed(kill_after):
            work()
        status = 0
    except calls_off:
        status = 2
    except BaseException:  # noqa: BLE001 - it is printed, and the status tells
        traceback.print_exc()
    finally:
        os._exit(status)


def end(child: int) -> int:
    """Return how the process ended: 0 when all is done, below zero for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def _killed(after: int | None) -> Iterator[None]:
    """Kill this process outright at its nth statement, before or after the database does it."""
    if after is None:
        yield
        return
    left = after

    def count(execute: Callable[..., object], *statement: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = execute(*statement)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    with connection.execute_wrapper(count):
        yield
