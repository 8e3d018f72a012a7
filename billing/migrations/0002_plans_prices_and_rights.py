from datetime import UTC, datetime
from decimal import Decimal

from django.apps.registry import Apps
from django.db import connections, migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

PRICES_FROM = datetime(2020, 1, 1, tzinfo=UTC)
PRICES = {
    "cpu": "0.000012",
    "memory": "0.000004",
    "storage": "0.0001",
    "network_egress": "0.02",
    "gpu": "0.0006",
}
PLANS = [
    # code, name, monthly fee, monthly credits
    ("developer", "Developer", Decimal(0), 0),
    ("professional", "Professional", Decimal(99), 100),
    ("team", "Team", Decimal(299), 300),
    ("enterprise", "Enterprise", None, 0),
]
FACTS = ("billing_creditgrant", "billing_creditentry")


def seed(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection.alias
    book = (
        apps.get_model("billing", "PriceBook")
        .objects.using(database)
        .create(code="default", name="Default")
    )
    version = (
        apps.get_model("billing", "PriceBookVersion")
        .objects.using(database)
        .create(book=book, effective_from=PRICES_FROM)
    )
    prices = apps.get_model("billing", "Price").objects.using(database)
    for meter, unit_price in PRICES.items():
        prices.create(version=version, meter=meter, currency="USD", unit_price=Decimal(unit_price))
    plans = apps.get_model("billing", "Plan").objects.using(database)
    for code, name, monthly_fee, monthly_credits in PLANS:
        plans.create(
            code=code,
            name=name,
            price_book=book,
            currency="USD",
            monthly_fee=monthly_fee,
            monthly_credits=monthly_credits,
        )


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # A ledger that its own application can edit proves nothing to an auditor.
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    for table in FACTS:
        schema_editor.execute(
            f"REVOKE UPDATE, DELETE, TRUNCATE ON {schema_editor.quote_name(table)} FROM {role}"
        )


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    for table in FACTS:
        schema_editor.execute(
            f"GRANT UPDATE, DELETE ON {schema_editor.quote_name(table)} TO {role}"
        )


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_tables")]

    operations = [
        # Backwards nothing to do: the tables go with the migration before.
        migrations.RunPython(seed, migrations.RunPython.noop),
        migrations.RunPython(take_rights, give_rights),
    ]
