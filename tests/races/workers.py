"""Runs the same work in several processes at once, each with a connection of its own."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

from django.db import connections

WORKERS = 10
TIMEOUT_S = 60

_fork = multiprocessing.get_context("fork")


def run_at_once(work: Callable[[int], object], *, workers: int = WORKERS) -> list[int]:
    """Call `work(number)` in each worker at the same moment; return the exit statuses."""
    # A connection that both sides of a fork used would be spoilt for both.
    connections.close_all()
    barrier = _fork.Barrier(workers)
    processes = [
        _fork.Process(target=_run, args=(work, number, barrier)) for number in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
    return [-1 if process.exitcode is None else process.exitcode for process in processes]


def _run(work: Callable[[int], object], number: int, barrier: Barrier) -> None:
    status = 1
    try:
        connections["default"].ensure_connection()
        barrier.wait(TIMEOUT_S)
        work(number)
        status = 0
    except BaseException:  # noqa: BLE001 - it is printed, and the status tells
        traceback.print_exc()
    finally:
        # Past pytest's own end: this process is a copy of it.
        os._exit(status)
