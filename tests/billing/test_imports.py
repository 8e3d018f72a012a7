"""Files that change discount rules, prices ahead and accounts' addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.test import Client

from billing import services
from billing.admin.importing import Imports
from billing.models import (
    Account,
    AuditEntry,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    Price,
    PriceBook,
)
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.test_exports import export, page_of
from tests.billing.usage import AFTER_MAY, open_account

pytestmark = pytest.mark.django_db

AHEAD = AFTER_MAY + timedelta(days=30)


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def upload(client: Client, model: type[Model], content: bytes | str) -> Any:
    content = content.encode() if isinstance(content, str) else content
    file = SimpleUploadedFile("rows.csv", content)
    said = {"import_file": file, "format": "0", "resource": "0", "reason": "New year"}
    response = client.post(page(model, "import"), said)
    assert response.status_code == 200
    return response


def confirm(client: Client, model: type[Model], shown: Any, **said: str) -> Any:
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown.content.decode())
    answer = {name: value for name, value in hidden if name != "csrfmiddlewaretoken"}
    assert "import_file_name" in answer, text_of(shown)
    return client.post(page(model, "process_import"), {**answer, **said}, follow=True)


def imported(client: Client, model: type[Model], content: bytes | str) -> str:
    return text_of(confirm(client, model, upload(client, model, content)))


def contacts(*rows: str) -> str:
    return "\n".join(["id,name,address,tax_id,billing_email", *rows])


def test_addresses_are_shown_then_imported_with_actor_and_reason(finance: Client) -> None:
    account = open_account("Ada")
    content = contacts(f'{account.pk},Ada,"1 Old Street\nLondon",=GB1,ada@example.com')
    shown = upload(finance, Account, content)
    assert "<ins>ada@example.com</ins>" in text_of(shown)
    account.refresh_from_db()
    assert (account.address, account.tax_id) == ("", "")
    before = AuditEntry.objects.count()
    assert "1 updated" in text_of(confirm(finance, Account, shown))
    account.refresh_from_db()
    assert account.address == "1 Old Street\nLondon"
    assert (account.tax_id, account.billing_email) == ("=GB1", "ada@example.com")
    (entry,) = AuditEntry.objects.order_by("id")[before:]
    assert (entry.actor and entry.actor.username, entry.reason) == ("finance", "New year")
    assert (entry.after or {})["billing_email"] == "ada@example.com"


def test_an_export_comes_back_without_a_change(finance: Client) -> None:
    account = open_account("=Ada")
    Account.objects.filter(pk=account.pk).update(address="+1\na\u202eb", tax_id="'x")
    DiscountRule.objects.update(name="-5 %")
    for model, table in ((Account, 1), (DiscountRule, 0)):
        content = export(finance, model, "csv", table=table).content
        rows = page_of(model).model.objects.order_by("pk")
        before = list(rows.values())
        assert "0 new, 0 updated" in imported(finance, model, content)
        assert list(rows.values()) == before


def test_the_columns_of_the_billing_run_are_left_alone(
    finance: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = open_account("Ada")
    save = Account.save

    def run_first(row: Account, *args: Any, **options: Any) -> None:
        Account.objects.filter(pk=row.pk).update(parked_reason="run", parked_at=AFTER_MAY)
        save(row, *args, **options)

    monkeypatch.setattr(Account, "save", run_first)
    imported(finance, Account, contacts(f"{account.pk},Ada,,,a@example.com"))
    account.refresh_from_db()
    assert (account.parked_reason, account.billing_email) == ("run", "a@example.com")


@pytest.mark.parametrize(
    ("cells", "refusal"),
    [
        ("nobody,,,,", "Use the id of an account"),
        ("00000000-0000-4000-8000-000000000001,,,,", "There is no account"),
        ("{id},Bob,,,", "look whether the row means another"),
        ("{id},Ada,,,ada@", "Enter a valid email address"),
        ("{id},Ada,," + "x" * 65 + ",", "at most 64 characters"),
        ("{id},Ada,a\u202eb,,", "does not show"),
        ("{id},Ada,,,<script>alert(1)</script>", "Enter a valid email address"),
    ],
)
def test_a_row_that_is_no_good_is_named_and_stops_all(
    finance: Client, cells: str, refusal: str
) -> None:
    account, other = open_account("Ada"), open_account("Other")
    good = f"{other.pk},Other,,,other@example.com"
    shown = text_of(upload(finance, Account, contacts(good, "", cells.format(id=account.pk))))
    assert refusal in shown
    # The number that a spreadsheet shows: the empty row counts.
    assert re.search(r'data-label="Row"[^>]*>\s*4\s*<', shown)
    assert "import_file_name" not in shown
    assert "<script>alert" not in shown
    assert set(Account.objects.values_list("billing_email", flat=True)) == {""}


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"id;address\n1;2", "divided by semicolons"),
        (b"id,address\n\xff,", "not UTF-8"),
        (b"id,parked_reason\n1,x", "no column &#x27;parked_reason&#x27;"),
        (b"id,address\n1,2,3", "Row 2: The row has 3 cells"),
        (b"id,address\n" + b"1,2\n" * 1001, "more than 1,000 rows"),
        (b"x" * 1_700_001, "is the most"),
        (b"PK\x03\x04\x00", "NUL"),
    ],
)
def test_a_file_that_is_none_is_refused_on_the_form(
    finance: Client, content: bytes, refusal: str
) -> None:
    assert refusal.replace("&#x27;", "'") in text_of(upload(finance, Account, content))


def test_an_import_wants_a_reason(finance: Client) -> None:
    file = SimpleUploadedFile("rows.csv", contacts(f"{open_account().pk},,,,").encode())
    said = {"import_file": file, "format": "0", "resource": "0", "reason": " "}
    shown = text_of(finance.post(page(Account, "import"), said))
    assert "This field is required" in shown
    assert "import_file_name" not in shown


def test_what_comes_back_has_to_be_what_was_shown(finance: Client) -> None:
    account = open_account("Ada")
    shown = upload(finance, Account, contacts(f"{account.pk},Ada,,,a@example.com"))
    for name in ("x", "/etc/passwd", "../settings.py"):
        answer = text_of(confirm(finance, Account, shown, import_file_name=name))
        assert "Upload the file again" in answer
    # A file for one table is none for another.
    other = text_of(confirm(finance, DiscountRule, shown))
    assert "Upload the file again" in other
    account.refresh_from_db()
    assert account.billing_email == ""


def test_a_row_that_is_refused_by_now_stops_all(finance: Client) -> None:
    accounts = [open_account(name) for name in ("Ada", "Bob")]
    content = contacts(*(f"{row.pk},{row.name},,,{row.name}@example.com" for row in accounts))
    shown = upload(finance, Account, content)
    Account.objects.filter(pk=accounts[1].pk).update(name="Robert")
    assert "Nothing was imported" in text_of(confirm(finance, Account, shown))
    assert set(Account.objects.values_list("billing_email", flat=True)) == {""}


def test_rules_are_added_and_changed(finance: Client) -> None:
    DiscountRule.objects.all().delete()
    old = DiscountRule.objects.create(name="Old", kind="volume", percent=5, min_amount=100)
    content = (
        "id,name,kind,scope,plan,currency,percent,is_active,valid_from\n"
        f"{old.pk},Old,volume,all,,USD,7.5,false,2026-07-01\n"
        ",New,volume,plan,team,USD,3,true,\n"
    )
    assert "1 new, 1 updated" in imported(finance, DiscountRule, content)
    old.refresh_from_db()
    assert (old.percent, old.is_active, old.min_amount) == (Decimal("7.5"), False, Decimal(100))
    new = DiscountRule.objects.get(name="New")
    assert (new.scope, new.plan and new.plan.code, new.priority) == ("plan", "team", 0)


@pytest.mark.parametrize(
    ("cells", "refusal"),
    [
        ("99999999,Rule,volume,all,,USD,5,true", "There is no rule"),
        ("x,Rule,volume,all,,USD,5,true", "There is no rule"),
        (',Rule,volume,all,,USD,"7,5",true', "Use digits and a point"),
        (",Rule,volume,all,,USD,101,true", "Use a percent from 0 to 100"),
        (",Rule,volume,plan,,USD,5,true", "Name a plan for scope plan"),
        (",Rule,volume,plan,none,USD,5,true", "Use the code of a plan"),
        (",Rule,gift,all,,USD,5,true", "not one of the available choices"),
        (",Rule,volume,all,,XXX,5,true", "Use a currency of ISO 4217"),
        (",Rule,volume,all,,USD,5,yes", "Use true or false"),
        ("," + "x" * 10_000 + ",volume,all,,USD,5,true", "at most 100 characters"),
    ],
)
def test_a_rule_that_the_form_refuses_is_refused(finance: Client, cells: str, refusal: str) -> None:
    before = list(DiscountRule.objects.order_by("pk").values())
    header = "id,name,kind,scope,plan,currency,percent,is_active\n"
    assert refusal in text_of(upload(finance, DiscountRule, header + cells))
    assert list(DiscountRule.objects.order_by("pk").values()) == before


def price_row(start: datetime, price: str = "0.5", charge: str = "per_unit") -> str:
    return (
        "book,effective_from,meter,currency,charge,unit_price\n"
        f"default,{start.isoformat()},cpu,USD,{charge},{price}"
    )


def test_prices_of_a_version_ahead_are_changed_and_those_in_force_are_not(
    finance: Client,
) -> None:
    book = PriceBook.objects.get(code="default")
    now = book.versions.get()
    ahead = services.start_version(book.pk, effective_from=AHEAD, now=AFTER_MAY)
    assert "1 updated" in imported(finance, Price, price_row(AHEAD))
    assert ahead.prices.get(meter="cpu").unit_price == Decimal("0.5")
    before = list(now.prices.values())
    shown = text_of(upload(finance, Price, price_row(now.effective_from)))
    assert "is in force. Prices that hold for somebody stay." in shown
    assert list(now.prices.values()) == before


def test_a_version_that_came_into_force_since_is_not_changed(
    finance: Client, set_clock: Callable[[datetime], None]
) -> None:
    book = PriceBook.objects.get(code="default")
    ahead = services.start_version(book.pk, effective_from=AHEAD, now=AFTER_MAY)
    before = list(ahead.prices.values())
    soon = AHEAD - timedelta(minutes=1)
    set_clock(soon)
    finance = Client()
    finance.force_login(User.objects.get(username="finance"))
    shown = upload(finance, Price, price_row(AHEAD))
    set_clock(AHEAD + timedelta(minutes=1))
    assert "Nothing was imported" in text_of(confirm(finance, Price, shown))
    assert list(ahead.prices.values()) == before


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (price_row(AHEAD, charge="graduated", price=""), "which a file has no place for"),
        (price_row(AHEAD, charge="package"), "package needs unit_price and package_size"),
        (price_row(AHEAD, price="-1"), "Use 0 or more for every price"),
        (price_row(AHEAD).replace("default", "none"), "has a version from"),
        (price_row(AHEAD).replace("+00:00", ""), "Use a time with its zone"),
    ],
)
def test_a_price_that_cannot_be_is_refused(finance: Client, content: str, refusal: str) -> None:
    book = PriceBook.objects.get(code="default")
    services.start_version(book.pk, effective_from=AHEAD, now=AFTER_MAY)
    before = list(Price.objects.order_by("pk").values())
    assert refusal in text_of(upload(finance, Price, content))
    assert list(Price.objects.order_by("pk").values()) == before


@pytest.mark.parametrize("model", [Account, DiscountRule, Price])
def test_who_may_not_change_a_table_imports_nothing(model: type[Model]) -> None:
    client = admin_pages.viewer()
    assert client.get(page(model, "import")).status_code == 403
    for at in ("import", "process_import"):
        assert client.post(page(model, at), {"reason": "x"}).status_code == 403
    assert "/import/" not in text_of(client.get(page(model)))


@pytest.mark.parametrize("model", [Invoice, CreditGrant, CreditEntry])
def test_what_happened_is_not_imported(finance: Client, model: type[Model]) -> None:
    assert not isinstance(page_of(model), Imports)
    assert finance.get(page(model, "import")).status_code in {302, 404}
