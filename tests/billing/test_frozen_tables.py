"""Every table that is frozen with a final invoice, as the database itself names them.

A later table that cannot be emptied, or that belongs to an invoice, is looked at without being
named here: it only needs a row in `everything_frozen`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import DatabaseError, connection, models, transaction
from django.db.models import ProtectedError

from billing import services
from billing.models import Invoice, InvoiceFile, NumberSeries
from tests.billing import admin_pages
from tests.billing.test_invoice_documents import everything
from tests.billing.test_late_usage import become_late
from tests.billing.usage import AFTER_MAY, JUNE, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

# What may move, and what is refused for another reason than being frozen counts as moving.
MAY_MOVE = {("billing_invoice", "status"), ("billing_invoice", "paid_at")}
# Tables that name an invoice and are not part of it.
NOT_OF_THE_INVOICE = {
    "billing_invoicemismatch": "what a check found, until it is put right",
    "billing_topup": "what was asked for, which its invoice came of",
    "payments_collectionpart": "where collecting it stands",
    "payments_allocation": "money that came for it",
    "payments_dunningcase": "what is done while it is unpaid",
}
MAY_MOVE_IN_ROWS = {(Invoice, "status"), (Invoice, "paid_at")}
REFUSED = re.compile("is final|is a fact|only added to|cannot be emptied|permission denied")

FROZEN_TABLES = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'is_not_emptied'"
# What names an invoice, or what names something that does.
OF_AN_INVOICE = """
WITH RECURSIVE of_invoice(id) AS (
    SELECT 'billing_invoice'::regclass::oid
    UNION
    SELECT conrelid FROM pg_constraint JOIN of_invoice ON confrelid = id WHERE contype = 'f'
)
SELECT id::regclass::text FROM of_invoice
"""
COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
 WHERE table_name = %s AND column_name <> 'id' AND is_generated = 'NEVER'
"""
OTHER_VALUES = {
    "ARRAY": "{0} || {0}",
    "bigint": "coalesce({0}, 0) + 1",
    "boolean": "NOT coalesce({0}, false)",
    "bytea": "{0} || '\\x00'",
    "character varying": "left(coalesce({0}, ''), 1) || 'x'",
    "date": "coalesce({0}, current_date) + 1",
    "integer": "coalesce({0}, 0) + 1",
    "jsonb": "jsonb_build_object('x', {0})",
    "numeric": "coalesce({0}, 0) + 1",
    "smallint": "coalesce({0}, 0) + 1",
    "text": "coalesce({0}, '') || 'x'",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 day'",
    "uuid": "gen_random_uuid()",
}
OTHERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (bool, lambda value: not value),
    ((int, Decimal), lambda value: value + 1),
    (str, lambda value: f"{value[:1]}x"),
    (date, lambda value: value + timedelta(days=1)),
    (dict, lambda value: {"x": value}),
    (list, lambda value: [*value, *value]),
    ((bytes, memoryview), lambda value: bytes(value) + b"x"),
    (UUID, lambda _: uuid4()),
)

Changes = dict[str, Callable[[], object]]


def ask(statement: str, *parameters: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return list(cursor.fetchall())


def frozen_tables() -> list[str]:
    return sorted(table for (table,) in ask(FROZEN_TABLES))


def everything_frozen() -> None:
    """Leave final invoices with a row in every table that is frozen."""
    invoice = everything(open_account())
    services.invoice_file(invoice.pk, format=InvoiceFile.Format.CSV, now=AFTER_MAY)
    # It was numbered by hand.
    NumberSeries.objects.create(series="invoice", year=2026, last_number=1)
    late = open_account("Late", plan_code="professional")
    record_usage(late.pk, NOON, cpu_s=10**7)
    bill(late)
    become_late(late, 10**18)
    bill(late, JUNE)
    # Small enough for one person to credit it.
    small = open_account("Small")
    record_usage(small.pk, NOON, cpu_s=10**6)
    by = services.Author("Wrong price", None, "note")
    services.credit_in_full(bill(small).pk, by=by, now=JUNE.end)


def refusal(change: Callable[[], object]) -> str:
    """Return what the database or Django said against a change, or nothing."""
    try:
        with transaction.atomic():
            change()
    except ProtectedError:
        return "is final, as Django sees before it asks the database"
    except DatabaseError as error:
        return str(error)
    return ""


def is_refused(change: Callable[[], object]) -> bool:
    return bool(REFUSED.search(refusal(change)))


def contents() -> dict[str, str]:
    """Return a digest of every frozen table."""
    return {
        table: ask(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t")[0][0]  # noqa: S608 - the catalogue's names
        for table in frozen_tables()
    }


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_what_belongs_to_an_invoice_is_frozen_or_named_here() -> None:
    of_invoice = {table for (table,) in ask(OF_AN_INVOICE)}
    assert of_invoice - set(frozen_tables()) == set(NOT_OF_THE_INVOICE)


def test_sql_changes_no_column_of_a_frozen_table_and_removes_no_row() -> None:
    everything_frozen()
    assert not Invoice.objects.filter(number=None).exists()
    moved = set()
    for table in frozen_tables():
        assert ask(f"SELECT 1 FROM {table} LIMIT 1"), f"Leave a row of {table} in everything_frozen"  # noqa: S608 - the catalogue's name
        for column, type_ in ask(COLUMNS, table):
            # Most look at no value, and after other constraints did; an invoice's looks first.
            values = (f'"{column}"', OTHER_VALUES[type_].format(f'"{column}"'))
            updates = [f'UPDATE {table} SET "{column}" = {value}' for value in values]  # noqa: S608 - the same
            if not any(is_refused(lambda: run(update)) for update in updates):  # noqa: B023 - called at once
                moved.add((table, column))
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):  # noqa: S608 - the same
            assert is_refused(lambda: run(statement)), statement  # noqa: B023 - called at once
    assert moved == MAY_MOVE


# What would let it change them after all, were it theirs that asks.
WAYS_ROUND = (
    "ALTER TABLE {} DISABLE TRIGGER ALL",
    "ALTER TABLE {} DISABLE TRIGGER is_not_emptied",
    "DROP TRIGGER is_not_emptied ON {}",
    "ALTER TABLE {} ADD COLUMN more integer",
    "ALTER TABLE {} RENAME TO other",
    "ALTER TABLE {} OWNER TO CURRENT_USER",
    "CREATE RULE instead AS ON INSERT TO {} DO INSTEAD NOTHING",
    "DROP TABLE {} CASCADE",
)
# Or let it be another.
ANOTHER_ROLE = (
    "SET session_replication_role = replica",
    "SET LOCAL session_replication_role = replica",
    "SELECT set_config('session_replication_role', 'replica', true)",
    "SET ROLE {}",
    "SET SESSION AUTHORIZATION {}",
    "GRANT {} TO CURRENT_USER",
)
MIGHT = """
SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
    OR EXISTS (SELECT 1 FROM pg_auth_members WHERE member = pg_roles.oid)
  FROM pg_roles WHERE rolname = current_user
"""


def test_the_applications_role_takes_no_guard_away() -> None:
    ((owner,),) = ask(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname = ANY(%s)",
        frozen_tables(),  # type: ignore[arg-type]
    )
    statements = [way.format(table) for table in frozen_tables() for way in WAYS_ROUND]
    statements += [way.format(owner) for way in ANOTHER_ROLE]
    for statement in statements:
        said = refusal(lambda: run(statement))  # noqa: B023 - called at once
        assert re.search("must be owner|permission denied|must have admin option", said), statement
    assert ask(MIGHT) == [(False,)]


def frozen_models() -> Iterator[type[models.Model]]:
    tables = set(frozen_tables())
    for model in apps.get_app_config("billing").get_models():
        if model._meta.db_table in tables:
            yield model


def other(value: Any) -> Any:
    """Return another value of the same type."""
    for types, change in OTHERS:
        if isinstance(value, types):
            return change(value)
    raise TypeError(value)


def changes_of(row: models.Model, field: models.Field[Any, Any], value: object) -> Changes:
    """Return each way in which the ORM might give a row's field a value."""
    of_model = type(row)._default_manager
    changed = of_model.get(pk=row.pk)
    setattr(changed, field.attname, value)
    return {
        "save": lambda: changed.save(update_fields=[field.name]),
        "update": lambda: of_model.filter(pk=row.pk).update(**{field.attname: value}),
        "bulk_update": lambda: of_model.bulk_update([changed], [field.name]),
    }


def removals_of(row: models.Model) -> Changes:
    """Return each way in which the ORM might remove a row."""
    this = type(row)._default_manager.filter(pk=row.pk)
    return {
        "delete": row.delete,
        "delete all": this.delete,
        "delete at once": lambda: this._raw_delete(this.db),
    }


def test_the_orm_changes_nothing_that_is_frozen() -> None:
    everything_frozen()
    before = contents()
    found = list(frozen_models())
    assert Invoice in found
    for model in found:
        row = model._default_manager.all()[0]
        for field in model._meta.concrete_fields:
            value = getattr(row, field.attname)
            if field.primary_key or value is None or (model, field.name) in MAY_MOVE_IN_ROWS:
                continue
            same, changed = (changes_of(row, field, v) for v in (value, other(value)))
            for way in same:
                assert is_refused(same[way]) or is_refused(changed[way]), (way, field)
        for way, removal in removals_of(row).items():
            assert is_refused(removal), (way, model)
    assert contents() == before


def test_the_admin_changes_nothing_that_is_frozen() -> None:
    everything_frozen()
    finance = admin_pages.finance()
    before = contents()
    registered = [model for model in frozen_models() if admin.site.is_registered(model)]
    assert Invoice in registered
    for model in registered:
        row = model._default_manager.all()[0]
        posted = {field.name: "1" for field in model._meta.concrete_fields}
        for page, said in (("change", posted), ("delete", {"post": "yes"})):
            address = admin_pages.page(model, row.pk, page)
            assert finance.post(address, said).status_code == 403, address
        chosen = {"action": "delete_selected", ACTION_CHECKBOX_NAME: str(row.pk), "post": "yes"}
        finance.post(admin_pages.page(model), chosen)
    after = contents()
    # What staff ask for is in the trail; nothing else has moved.
    assert after == before
