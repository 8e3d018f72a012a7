"""An installation with rows of the first tables is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.apps.registry import Apps
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql
from pytest_django.plugin import DjangoDbBlocker

from tests.soulbox.test_migrations import BEFORE_THE_RULE

FIRST = [("billing", "0002_plans_prices_and_rights"), ("metering", "0003_usage_row")]
# The apps whose tables came or grew since.
LATER_GREW = {"payments", "billing", "metering"}
NAME = "soulbox_upgrade"
MAY, JUNE, JULY = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7))


@pytest.fixture
def empty_database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let the owner's connection be to a database of its own."""
    del django_db_setup
    owner = connections["owner"]
    name = owner.settings_dict["NAME"]
    with django_db_blocker.unblock():
        parameters = owner.get_connection_params()
        with psycopg.connect(**parameters, autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
            owner.close()
            owner.settings_dict["NAME"] = NAME
            try:
                yield
            finally:
                owner.close()
                owner.settings_dict["NAME"] = name
                server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(NAME)))


def migrate(targets: list[tuple[str, str]]) -> Apps:
    executor = MigrationExecutor(connections["owner"])
    state = executor.migrate(targets)
    return state.apps


def leave_rows(apps: Apps) -> None:
    """Leave a customer's first month: on a plan, with credit, an invoice and a life that ended."""

    def add(app: str, model: str, **columns: Any) -> Any:
        return apps.get_model(app, model).objects.using("owner").create(**columns).pk

    account = add(
        "billing",
        "Account",
        name="Ada",
        opened_at=MAY,
        open_period_start=JUNE,
        open_period_end=JULY,
    )
    plan = apps.get_model("billing", "Plan").objects.using("owner").get(code="professional")
    terms = {"monthly_fee": 99, "monthly_credits": 100, "started_at": MAY}
    subscription = add("billing", "Subscription", account_id=account, plan_id=plan.pk, **terms)
    month = {"period_start": MAY, "period_end": JUNE}
    grant = add("billing", "CreditGrant", subscription_id=subscription, **month)
    add("billing", "CreditEntry", grant_id=grant, kind="grant", amount=100, recorded_at=MAY)
    invoice = add(
        "billing",
        "Invoice",
        account_id=account,
        status="pending",
        number="2026-000001",
        currency="USD",
        usage_fee=12,
        total_amount=12,
        amount_due=12,
        drafted_at=JUNE,
        computed_at=JUNE,
        finalise_after=JUNE,
        finalised_at=JUNE,
        **month,
    )
    add(
        "billing",
        "InvoiceLine",
        invoice_id=invoice,
        kind="usage",
        position=1,
        description="CPU time",
        meter="cpu",
        quantity=10**15,
        base_unit="cpu_ns",
        unit="cpu_seconds",
        unit_size=10**9,
        unit_price=Decimal("0.000012"),
        amount=12,
        **month,
    )
    add("metering", "AccountRegistration", account_id=account, registered_at=MAY)
    host = add(
        "metering", "Host", pk=uuid4(), name="host", endpoint="simulator:", registered_at=MAY
    )
    sandbox = add("metering", "Sandbox", account_id=account, sandbox_id="sbx", recorded_at=MAY)
    add(
        "metering",
        "Life",
        pk=1,
        sandbox_id=sandbox,
        host_id=host,
        container_id="c",
        started_ns=1,
        started_at=MAY,
        ended_at=JUNE,
        counts_from_zero=True,
        recorded_at=MAY,
    )


def columns(owner: BaseDatabaseWrapper) -> dict[str, dict[str, bool]]:
    """Return each table's columns, and whether a row can be added that says nothing of one."""
    with owner.cursor() as cursor:
        cursor.execute(
            """
            SELECT table_name, column_name,
                   is_nullable = 'YES' OR column_default IS NOT NULL OR is_identity = 'YES'
              FROM information_schema.columns WHERE table_schema = 'public'
            """
        )
        found: dict[str, dict[str, bool]] = {}
        for table, column, may_be_left_out in cursor.fetchall():
            found.setdefault(table, {})[column] = may_be_left_out
    return found


def assert_code_of_before_reads_and_writes_the_tables_of_now() -> None:
    """See that the models as they were before each migration under the rule fit the tables.

    They are made from the migrations, so that no history of the code is needed.
    """
    loader = MigrationExecutor(connections["owner"]).loader
    before = [
        (app, BEFORE_THE_RULE[app]) if app in BEFORE_THE_RULE else (app, name)
        for app, name in loader.graph.leaf_nodes()
    ]
    models_of_before = loader.project_state(before).apps.get_models(include_auto_created=True)
    now = columns(connections["owner"])
    tried = 0
    for model in models_of_before:
        known = {field.column for field in model._meta.concrete_fields}
        table = now[model._meta.db_table]
        assert known <= table.keys(), f"{model._meta.label} reads what is gone"
        new = {column for column in table.keys() - known if not table[column]}
        assert not new, f"{model._meta.label} does not fill {new}"
        # As the code of before asks: by the names of all its columns.
        assert list(model._base_manager.using("owner").all()[:1]) is not None
        tried += 1
    assert tried > 80
    account = next(one for one in models_of_before if one._meta.label == "billing.Account")
    row = account._base_manager.using("owner").create(
        name="Grace",
        opened_at=MAY,
        open_period_start=JUNE,
        open_period_end=JULY,
    )
    rows = account._base_manager.using("owner").filter(pk=row.pk)
    assert rows.update(name="Grace H.") == 1


@pytest.mark.usefixtures("empty_database")
def test_a_first_installation_with_rows_is_brought_up_to_date_and_bears_code_of_before() -> None:
    leaves = MigrationExecutor(connections["owner"]).loader.graph.leaf_nodes()
    leave_rows(migrate([*(leaf for leaf in leaves if leaf[0] not in LATER_GREW), *FIRST]))
    apps = migrate(leaves)
    grant = apps.get_model("billing", "CreditGrant").objects.using("owner").get()
    assert (grant.kind, grant.account.name) == ("monthly", "Ada")
    assert (grant.effective_at, grant.expires_at, grant.granted_at) == (MAY, JUNE, MAY)
    subscription = apps.get_model("billing", "Subscription").objects.using("owner").get()
    assert (subscription.fee, subscription.expires_at) == (99, None)
    line = apps.get_model("billing", "InvoiceLine").objects.using("owner").get()
    assert (line.charge, line.discount) == ("per_unit", 0)
    life = apps.get_model("metering", "Life").objects.using("owner").get()
    assert (life.gone_at, life.labels) == (JUNE, {})
    assert_code_of_before_reads_and_writes_the_tables_of_now()
