import django.db.models.deletion
from django.apps.registry import Apps
from django.db import connections, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# What a provider told is a fact: closed periods were cut by it.
TABLE = "billing_providerperiod"


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {TABLE} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT UPDATE, DELETE ON {TABLE} TO {role}")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0023_fees_that_a_provider_collects"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderPeriod",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("holds_from", models.DateTimeField()),
                ("recorded_at", models.DateTimeField()),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="provider_periods",
                        to="billing.account",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("account", "starts_at", "ends_at"),
                        name="period_of_a_provider_is_taken_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("ends_at__gt", models.F("starts_at")),
                            ("ends_at__gt", models.F("holds_from")),
                        ),
                        name="period_of_a_provider_ends_after_its_start",
                    ),
                ],
            },
        ),
        migrations.RunPython(take_rights, give_rights),
    ]
