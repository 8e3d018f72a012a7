"""What a monitor is told was used: by the heaviest accounts, and by all others together.

Counted as it is folded, so that nothing that is dropped, corrected or filled in later moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from django.db import connection, transaction

from metering.ledger import Book
from metering.meters import UNITS, Meter
from metering.models import ToldAccount, UsageCounter
from metering.samples import Records
from metering.steps import Ints
from metering.totals import LIFE_COLUMNS, NETWORK_COLUMNS, STORAGE_COLUMNS

OTHER = "other"
MOST_NEW = 25
"""An account is told of once it is among so many of the heaviest."""
MOST_TOLD = 50
"""It stays until it is not among these any more, so that series do not come and go."""
RECENT_DAYS = 2

_COLUMNS = {meter: UNITS[meter].stored for meter in Meter}


def count_usage(book: Book) -> None:
    """Add a run of folds to the counters, once: in the transaction that moves the cursor."""
    sums: dict[int, dict[Meter, int]] = {}
    for lives, usage, columns in _parts(book):
        numbers, places = np.unique(book.owner_of(lives)["told_number"], return_inverse=True)
        for meter, column in columns.items():
            for number, grown in zip(
                numbers.tolist(), _sums(usage[column], places, len(numbers)), strict=True
            ):
                sums.setdefault(number, {})[meter] = sums.get(number, {}).get(meter, 0) + grown
    if sums:
        _add(book.host_id, sums)


def _parts(book: Book) -> Iterator[tuple[Ints, Records, Mapping[Meter, str]]]:
    """Yield the lives that each part of the usage is of, that part, and its meters' columns."""
    for usage in book.lives.usage:
        yield usage["life"], usage, LIFE_COLUMNS
    readings = book.interfaces.readings
    for usage in book.interfaces.usage:
        rows = np.searchsorted(readings["interface"], usage["interface"])
        yield readings["life"][rows], usage, NETWORK_COLUMNS
    for usage in book.storage.usage:
        yield usage["life"], usage, STORAGE_COLUMNS


def _sums(quantities: Ints, places: Ints, count: int) -> Iterator[int]:
    """Yield the sum of the quantities of each place, whatever its size."""
    # In two halves: byte-milliseconds of some hundred sandboxes pass 64 bits.
    high, low = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.add.at(high, places, quantities >> 32)
    np.add.at(low, places, quantities & 0xFFFFFFFF)
    for upper, lower in zip(high.tolist(), low.tolist(), strict=True):
        yield (upper << 32) + lower


def _add(host_id: UUID, sums: Mapping[int, Mapping[Meter, int]]) -> None:
    names = list(_COLUMNS.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO metering_usagecounter AS kept (host_id, told_as, {", ".join(names)})
            -- An account that is not told of any more by now is among the others.
            SELECT %s, COALESCE(told.account_id::text, %s) AS name,
                {", ".join(f"sum(grown.{name}::numeric)" for name in names)}
            FROM unnest(%s::integer[], {", ".join("%s::text[]" for _ in names)})
                AS grown(number, {", ".join(names)})
            LEFT JOIN metering_toldaccount told ON told.number = grown.number
            GROUP BY name
            ON CONFLICT (host_id, told_as) DO UPDATE
            SET {", ".join(f"{name} = kept.{name} + EXCLUDED.{name}" for name in names)}
            """,  # noqa: S608 - names of our own columns
            [
                host_id,
                OTHER,
                list(sums),
                *([str(grown.get(meter, 0)) for grown in sums.values()] for meter in _COLUMNS),
            ],
        )


def told_usage() -> dict[str, dict[Meter, int]]:
    """Return what was counted, in base units, by id of the accounts told of, and as `other`."""
    columns = ", ".join(f"COALESCE(sum(counted.{name}), 0)" for name in _COLUMNS.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT told.name, {columns}
            FROM (SELECT account_id::text AS name FROM metering_toldaccount
                UNION ALL SELECT %s) AS told
            LEFT JOIN metering_usagecounter counted ON counted.told_as = told.name
            GROUP BY told.name ORDER BY told.name
            """,  # noqa: S608 - names of our own columns
            [OTHER],
        )
        return {
            name: {meter: int(total) for meter, total in zip(_COLUMNS, totals, strict=True)}
            for name, *totals in cursor.fetchall()
        }


def choose_told_accounts(*, now: datetime) -> list[UUID]:
    """Choose whom a monitor is told of: the heaviest of the last days. Return those who are new.

    Safe to repeat and to run at once. Who leaves is among the others from then on, and begins at
    zero if it comes back, which a monitor takes for what it is.
    """
    ranked = _heaviest(now=now)
    with transaction.atomic():
        known = set(ToldAccount.objects.values_list("account_id", flat=True))
        fresh = [account_id for account_id in ranked[:MOST_NEW] if account_id not in known]
        ToldAccount.objects.bulk_create(
            [ToldAccount(account_id=account_id, since=now) for account_id in fresh],
            ignore_conflicts=True,
        )
        ToldAccount.objects.exclude(account__in=ranked).delete()
        told = ToldAccount.objects.values_list("account_id", flat=True)
        UsageCounter.objects.exclude(told_as__in=[OTHER, *map(str, told)]).delete()
    return fresh


def _heaviest(*, now: datetime) -> Sequence[UUID]:
    """Return the accounts with the largest shares of all usage, those of all meters added up."""
    names = list(_COLUMNS.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT account_id, {
                " + ".join(f"COALESCE({n} / NULLIF(sum({n}) OVER (), 0), 0)" for n in names)
            } AS share
            FROM (
                SELECT account.account_id, {", ".join(f"sum(used.{n}) AS {n}" for n in names)}
                FROM metering_accountregistration account
                -- OFFSET 0 has each account's days looked up by their index.
                JOIN LATERAL (SELECT * FROM metering_dailyusagetotal total
                    WHERE total.account_id = account.account_id AND day >= %s OFFSET 0) AS used
                ON true
                GROUP BY account.account_id
            ) AS recent
            ORDER BY share DESC, account_id LIMIT %s
            """,  # noqa: S608 - names of our own columns
            [(now - timedelta(days=RECENT_DAYS)).date(), MOST_TOLD],
        )
        return [account_id for account_id, _share in cursor.fetchall()]
