"""Folds one host's stream, and kills itself outright after so many statements.

Run as `python -m tests.faults.fold HOST NOW [STATEMENTS]`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import django

SAMPLES_PER_COMMIT = 40


class KillAfter:
    """Ends this process, as `kill -9` does, when the given number of statements has run."""

    def __init__(self, statements: int) -> None:
        self.left = statements

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any
    ) -> Any:
        result = execute(sql, params, many, context)
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def main() -> None:
    host_id, now = UUID(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
    django.setup()
    from django.db import connection  # noqa: PLC0415 - the settings have to be there first

    from metering import aggregator  # noqa: PLC0415 - the same

    aggregator.SAMPLES_PER_COMMIT = SAMPLES_PER_COMMIT
    if len(sys.argv) > 3:
        connection.execute_wrappers.append(KillAfter(int(sys.argv[3])))
    aggregator.aggregate_host(host_id, now=now)


if __name__ == "__main__":
    main()
