"""Lists as files: by whom, of what, and what a spreadsheet makes of hostile text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from io import BytesIO, StringIO
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from openpyxl import load_workbook

from billing import services
from billing.admin.exporting import Csv, Exports, Json, Xlsx
from billing.credits import CreditKind
from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    InvoiceLine,
    Plan,
    Price,
    Subscription,
)
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.usage import AFTER_MAY, NOON, bill, open_account, record_first_invoice

pytestmark = pytest.mark.django_db

FORMULA = '=HYPERLINK("http://evil","x")'
FORMATS = {"csv": 0, "xlsx": 1, "json": 2}
TABLES = (
    Account,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    Plan,
    Price,
    Subscription,
)


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def invoice() -> Invoice:
    account = open_account(FORMULA, plan_code="professional")
    record_first_invoice(account.pk)
    gift = services.Gift(CreditKind.PREPAID, Decimal("7.5"), "+1", "@ref")
    services.grant_credit(account.pk, gift, now=NOON)
    return bill(account)


def page_of(model: type[Model]) -> Any:
    found = admin.site._registry[model]
    assert isinstance(found, Exports)
    return found


def export(
    client: Client, model: type[Model], form: str, *, table: int = 0, filters: str = ""
) -> Any:
    """Take a list as a file with all its columns, as the form that is shown would."""
    said = {"format": str(FORMATS[form]), "resource": str(table)}
    for resource in page_of(model).export_tables:
        said |= {f"{resource.__name__.lower()}_{name}": "on" for name in resource.fields}
    return client.post(page(model, "export") + filters, said)


def rows_of(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    assert "attachment" in response["Content-Disposition"], text_of(response)
    content = response.content.decode("utf-8-sig")
    return list(csv.DictReader(StringIO(content, newline="")))


@pytest.mark.usefixtures("invoice")
@pytest.mark.parametrize("model", TABLES)
def test_every_table_exports_all_its_columns_in_every_format(
    finance: Client, model: type[Model]
) -> None:
    for at, table in enumerate(page_of(model).export_tables):
        read = rows_of(export(finance, model, "csv", table=at))
        assert list(read[0] if read else table.fields) == list(table.fields)
        told = json.loads(export(finance, model, "json", table=at).content)
        assert len(told) == len(read)
        book = load_workbook(BytesIO(export(finance, model, "xlsx", table=at).content))
        sheet = book.active
        assert sheet.max_row == len(read) + 1
        assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {
            "inlineStr",
            "s",
            "n",
            "b",
        }


def test_text_is_no_formula_and_figures_are_figures(finance: Client, invoice: Invoice) -> None:
    (row,) = rows_of(export(finance, Invoice, "csv"))
    assert row["account"] == f"'{FORMULA}"
    assert Decimal(row["total_amount"]) == invoice.total_amount
    assert row["period_start"] == "2026-05-01T00:00:00Z"
    book = load_workbook(BytesIO(export(finance, Invoice, "xlsx").content))
    names, values = ([cell.value for cell in row] for row in book.active.iter_rows())
    told = dict(zip(names, values, strict=True))
    assert told["account"] == f"'{FORMULA}"
    assert Decimal(str(told["total_amount"])) == invoice.total_amount
    (told,) = json.loads(export(finance, Invoice, "json").content)
    assert (told["account"], told["total_amount"]) == (FORMULA, row["total_amount"])


def test_lines_are_those_of_the_invoices_that_the_filters_leave(
    finance: Client, invoice: Invoice
) -> None:
    read = rows_of(export(finance, Invoice, "csv", table=1))
    assert len(read) == InvoiceLine.objects.filter(invoice=invoice).count() > 1
    assert sum(Decimal(row["amount"]) for row in read) == sum(
        line.amount for line in invoice.lines.all()
    )
    assert {row["invoice"] for row in read} == {invoice.number}
    assert not rows_of(export(finance, Invoice, "csv", table=1, filters="?status__exact=void"))


def test_credit_is_exported_with_what_is_left_and_its_entries(
    finance: Client, invoice: Invoice
) -> None:
    grants = rows_of(export(finance, CreditGrant, "csv"))
    entries = rows_of(export(finance, CreditGrant, "csv", table=1))
    assert entries == rows_of(export(finance, CreditEntry, "csv"))[::-1] or len(entries) == len(
        rows_of(export(finance, CreditEntry, "csv"))
    )
    for grant in grants:
        left = sum(Decimal(row["amount"]) for row in entries if row["grant_id"] == grant["id"])
        assert Decimal(grant["balance"]) == left
    assert {"'@ref", ""} == {row["reference"] for row in grants}
    assert invoice.number in {row["invoice"] for row in entries}


def test_numbers_that_a_spreadsheet_would_round_are_text_there() -> None:
    from tablib import Dataset  # noqa: PLC0415 - it stands for the library's rows in this test alone

    long = Decimal("12345678901234567890.5")
    dataset = Dataset(headers=["long", "short", "is", "bidi"])
    dataset.append([long, Decimal("0.000012"), True, "a\u202eb\x07"])
    book = load_workbook(BytesIO(Xlsx().export_data(dataset)))
    cells = [cell.value for cell in list(book.active.iter_rows())[1]]
    assert cells[0] == "12345678901234567890.5"
    assert Decimal(str(cells[1])) == Decimal("0.000012")
    assert cells[2:] == [True, "a�b�"]
    assert b"12345678901234567890.5,0.000012,true" in Csv().export_data(dataset)
    (row,) = json.loads(Json().export_data(dataset))
    assert row == {"long": str(long), "short": "0.000012", "is": True, "bidi": "a�b�"}


def test_support_takes_what_it_sees(invoice: Invoice) -> None:
    client = Client()
    user = User.objects.create_user("support", is_staff=True)
    user.groups.add(Group.objects.get(name="support"))
    client.force_login(user)
    assert [row["number"] for row in rows_of(export(client, Invoice, "csv"))] == [invoice.number]
    assert "Export" in text_of(client.get(page(Invoice)))


@pytest.mark.usefixtures("invoice")
def test_who_sees_invoices_only_gets_no_lines_and_who_sees_none_nothing() -> None:
    user = User.objects.create_user("narrow", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(page(Invoice, "export")).status_code == 403
    assert export(client, Invoice, "csv").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_invoice"))
    assert "number" in rows_of(export(client, Invoice, "csv"))[0]
    refused = export(client, Invoice, "csv", table=1)
    assert "Content-Disposition" not in refused.headers


@pytest.mark.usefixtures("invoice")
def test_a_file_that_would_be_too_large_says_what_to_do(
    finance: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.admin.exporting.MOST_ROWS", 1)
    response = export(finance, Invoice, "csv", table=1)
    assert "These are more than 1 rows. Filter the list" in text_of(response)


@pytest.mark.parametrize(("model", "table"), [(Account, 0), (CreditGrant, 0), (CreditGrant, 1)])
def test_more_rows_take_no_more_queries(finance: Client, model: type[Model], table: int) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            rows_of(export(finance, model, "csv", table=table))
        return len(captured)

    def add(count: int) -> None:
        for at in range(count):
            account = open_account(f"{count} {at}")
            gift = services.Gift(CreditKind.PREPAID, Decimal(1), "x", "y")
            services.grant_credit(account.pk, gift, now=NOON)

    add(2)
    few = queries()
    add(30)
    assert queries() == few
