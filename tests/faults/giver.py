"""Gives an account one cent of credit after another, and says which of them are committed.

Run as `python -m tests.faults.giver ACCOUNT FILE`; the file gets their numbers. What fails is tried
again, under the same reference.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from uuid import UUID

import django
from django.db import Error, connection

CENT = Decimal("0.01")
PAUSE_S = 0.2


def give(account_id: UUID, number: int) -> None:
    from billing.credits import CreditKind  # noqa: PLC0415 - the settings have to be there first
    from billing.services.credits import Gift, grant_credit  # noqa: PLC0415 - the same

    gift = Gift(CreditKind.PROMOTIONAL, CENT, "An outage is tried", f"given {number}")
    while True:
        try:
            grant_credit(account_id, gift, now=datetime.now(UTC))
        except Error:
            connection.close()
            time.sleep(PAUSE_S)
        else:
            return


if __name__ == "__main__":
    django.setup()
    with Path(sys.argv[2]).open("w") as told:
        for given in count(1):
            give(UUID(sys.argv[1]), given)
            told.write(f"{given}\n")
            told.flush()
            time.sleep(PAUSE_S)
