"""Credit for many accounts, as a file names it: what each row asks for, or what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final
from uuid import UUID

from billing.credits import RESERVED_REFERENCES, CreditKind
from billing.documents.text import one_line
from billing.sheets import Layout, SheetRow, number_refusal, quoted, read_sheet, written_text

GRANTS: Final = Layout(
    columns=("account", "kind", "amount", "reason", "reference", "expires_at", "priority"),
    required=("account", "kind", "amount", "reason", "reference"),
    most_rows=10_000,
    # The file goes to the page and back as signed base64, below Django's bound of 2.5 MiB.
    most_bytes=1_700_000,
)
LONGEST: Final = {"reason": 200, "reference": 100}
"""Characters, as in the table."""
MOST_AMOUNT: Final = Decimal(10) ** 12
MOST_PRIORITY: Final = 2**31 - 1
BY_HAND: Final = (CreditKind.PROMOTIONAL, CreditKind.PREPAID)
WHOLE_ROW: Final = ""
"""The column of a fault that is of no single cell."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one cell, and the way out."""

    column: str
    message: str


@dataclass(frozen=True, slots=True)
class AskedGrant:
    """The credit that a row asks for; the account's currency is not known yet."""

    account_id: UUID
    kind: CreditKind
    amount: Decimal
    reason: str
    reference: str
    expires_at: datetime | None
    priority: int


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A row of the file: the grant it asks for, or its faults."""

    number: int
    cells: Mapping[str, str]
    grant: AskedGrant | None
    faults: Sequence[Fault]


class _CellRefusedError(ValueError):
    pass


def read_grants(content: bytes) -> tuple[GrantRow, ...]:
    """Return what each row of a CSV asks for. Raises SheetRefusedError when it is none at all."""
    rows = [_read(row) for row in read_sheet(content, GRANTS)]
    first: dict[tuple[UUID, str], int] = {}
    read = []
    for row in rows:
        if row.grant:
            key = row.grant.account_id, row.grant.reference
            if key in first:
                fault = Fault(
                    "reference",
                    f"Row {first[key]} has this account and reference already. Take one of the "
                    "rows out, or give it a reference of its own.",
                )
                read.append(GrantRow(row.number, row.cells, None, (fault,)))
                continue
            first[key] = row.number
        read.append(row)
    return tuple(read)


def _read(row: SheetRow) -> GrantRow:
    if row.fault:
        return GrantRow(row.number, row.cells, None, (Fault(WHOLE_ROW, row.fault),))
    said: dict[str, object] = {}
    faults = []
    for column, read in _READERS.items():
        try:
            said[column] = read(row.cells.get(column, ""))
        except _CellRefusedError as refused:
            faults.append(Fault(column, str(refused)))
    if faults:
        return GrantRow(row.number, row.cells, None, tuple(faults))
    account_id = said.pop("account")
    return GrantRow(row.number, row.cells, AskedGrant(account_id=account_id, **said), ())  # type: ignore[arg-type]  # each reader returns its field's type


def _account(cell: str) -> UUID:
    try:
        account_id = UUID(cell)
    except ValueError:
        account_id = None
    # UUID() takes braces and a urn: too, which nothing of ours writes.
    if account_id is None or str(account_id) != cell.lower():
        raise _CellRefusedError(
            f"account is {quoted(cell)}. Use the account's id, as on its page in the admin."
        )
    return account_id


def _kind(cell: str) -> CreditKind:
    if cell not in BY_HAND:
        raise _CellRefusedError(f"kind is {quoted(cell)}. Use {' or '.join(BY_HAND)}.")
    return CreditKind(cell)


def _amount(cell: str) -> Decimal:
    if refusal := number_refusal("amount", cell):
        raise _CellRefusedError(refusal)
    amount = Decimal(cell)
    if not 0 < amount <= MOST_AMOUNT:
        raise _CellRefusedError(
            f"amount is {quoted(cell)}. Use more than 0, and {MOST_AMOUNT:,} at most."
        )
    return amount


def _text_of(column: str) -> Callable[[str], str]:
    def text(cell: str) -> str:
        written = written_text(cell)
        longest = LONGEST[column]
        if not written:
            raise _CellRefusedError(f"{column} is empty. Fill it in.")
        if len(written) > longest:
            raise _CellRefusedError(
                f"{column} has {len(written):,} characters. Use {longest} at most."
            )
        if one_line(written) != written:
            raise _CellRefusedError(
                f"{column} holds a line break or a character that does not show. Take it out."
            )
        return written

    return text


def _reference(cell: str) -> str:
    reference = _text_of("reference")(cell)
    if reference.startswith(RESERVED_REFERENCES):
        raise _CellRefusedError(
            f"reference is {quoted(cell)}. Those of invoices, corrections and top-ups are made "
            "by themselves: use another."
        )
    return reference


def _expires_at(cell: str) -> datetime | None:
    if not cell:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", cell):
            return datetime.combine(date.fromisoformat(cell), time(), tzinfo=UTC)
        moment = datetime.fromisoformat(cell)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _CellRefusedError(
        f"expires_at is {quoted(cell)}. Use a day, which begins at midnight UTC, as in 2027-01-31, "
        "or a time with its zone, as in 2027-01-31T12:00:00Z. Empty: never."
    )


def _priority(cell: str) -> int:
    if not cell:
        return 0
    if not re.fullmatch(r"-?[0-9]{1,10}", cell) or abs(int(cell)) > MOST_PRIORITY:
        raise _CellRefusedError(f"priority is {quoted(cell)}. Use a whole number; empty is 0.")
    return int(cell)


_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "account": _account,
    "kind": _kind,
    "amount": _amount,
    "reason": _text_of("reason"),
    "reference": _reference,
    "expires_at": _expires_at,
    "priority": _priority,
}
