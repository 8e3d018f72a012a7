"""What the rows of a file of credit ask for; without a database."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.bulk_credits import GRANTS, GrantRow, read_grants
from billing.credits import CreditKind

ACCOUNT = "00000000-0000-4000-8000-0000000000d0"
GOOD = {
    "account": ACCOUNT,
    "kind": "promotional",
    "amount": "10.50",
    "reason": "Outage",
    "reference": "INC-7",
    "expires_at": "",
    "priority": "",
}


def file_of(*rows: dict[str, str]) -> bytes:
    lines = [",".join(GRANTS.columns)]
    for said in rows:
        cells = {**GOOD, **said}
        lines.append(",".join(f'"{cells[name]}"' for name in GRANTS.columns))
    return "\n".join(lines).encode()


def row_of(**said: str) -> GrantRow:
    (row,) = read_grants(file_of(said))
    return row


def test_a_row_asks_for_a_grant() -> None:
    grant = row_of(expires_at="2027-01-31", priority="-3").grant
    assert grant
    assert (grant.kind, grant.amount, str(grant.account_id)) == (
        CreditKind.PROMOTIONAL,
        Decimal("10.50"),
        ACCOUNT,
    )
    assert grant.expires_at == datetime(2027, 1, 31, tzinfo=UTC)
    assert (grant.reason, grant.reference, grant.priority) == ("Outage", "INC-7", -3)


@pytest.mark.parametrize("written", ["2027-01-31T13:00:00+01:00", "2027-01-31T12:00:00Z"])
def test_times_with_a_zone_are_brought_to_utc(written: str) -> None:
    grant = row_of(expires_at=written).grant
    assert grant
    assert grant.expires_at == datetime(2027, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "cell", "way_out"),
    [
        ("account", "Ada", "Use the account's id"),
        ("account", "{" + ACCOUNT + "}", "Use the account's id"),
        ("account", "", "Use the account's id"),
        ("kind", "monthly", "Use promotional or prepaid"),
        ("kind", "Prepaid", "Use promotional or prepaid"),
        ("amount", "10,50", "Use digits and a point"),
        ("amount", "=1+1", "Use digits and a point"),
        ("amount", "1e3", "Use digits and a point"),
        ("amount", "NaN", "Use digits and a point"),
        ("amount", "0", "Use more than 0"),
        ("amount", "-5", "Use more than 0"),
        ("amount", "1000000000000.01", "at most"),
        ("reason", "", "Fill it in"),
        ("reason", "x" * 10_000, "Use 200 at most"),
        ("reason", "a\u202eb", "does not show"),
        ("reason", "a\nb", "line break"),
        ("reference", "", "Fill it in"),
        ("reference", "x" * 101, "Use 100 at most"),
        ("reference", "invoice:7", "made by themselves"),
        ("reference", "top-up:7", "made by themselves"),
        ("expires_at", "31.01.2027", "as in 2027-01-31"),
        ("expires_at", "2027-02-30", "as in 2027-01-31"),
        ("expires_at", "2027-01-31T12:00:00", "a time with its zone"),
        ("expires_at", "0001-01-01T00:00:00+23:00", "as in 2027-01-31"),
        ("priority", "1.5", "Use a whole number"),
        ("priority", "9" * 10, "Use a whole number"),
    ],
)
def test_a_cell_that_is_no_good_is_named_with_the_way_out(
    column: str, cell: str, way_out: str
) -> None:
    row = row_of(**{column: cell})
    assert row.grant is None
    (fault,) = row.faults
    assert fault.column == column
    assert way_out in fault.message
    assert len(fault.message) < 300


def test_every_fault_of_a_row_is_told_at_once() -> None:
    row = row_of(kind="gift", amount="1,5")
    assert [fault.column for fault in row.faults] == ["kind", "amount"]


def test_a_formula_is_text_as_any_other() -> None:
    grant = row_of(reason="=HYPERLINK(1)", reference="'=1+1").grant
    assert grant
    assert (grant.reason, grant.reference) == ("=HYPERLINK(1)", "=1+1")


def test_the_second_row_of_an_account_and_reference_names_the_first() -> None:
    other = ACCOUNT.replace("d0", "d1")
    rows = read_grants(file_of({}, {"account": other}, {"amount": "7"}))
    assert [bool(row.grant) for row in rows] == [True, True, False]
    (fault,) = rows[2].faults
    assert fault.column == "reference"
    assert "Row 2 has this account and reference" in fault.message
