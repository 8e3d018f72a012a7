import django.contrib.postgres.fields
import django.db.models.deletion
from django.apps.registry import Apps
from django.db import connections, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# What a customer was given, and what its chart was drawn from, are facts.
FACTS = ("billing_invoicefile", "billing_invoicedays")
NOT_EMPTIED = """
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_not_emptied();
"""


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    for table in FACTS:
        schema_editor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    for table in FACTS:
        schema_editor.execute(f"GRANT UPDATE, DELETE ON {table} TO {role}")


class Migration(migrations.Migration):
    dependencies = [("billing", "0014_desk")]

    operations = [
        migrations.CreateModel(
            name="InvoiceDays",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("first_day", models.DateField()),
                (
                    "amounts",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.DecimalField(decimal_places=4, max_digits=20), size=None
                    ),
                ),
                (
                    "invoice",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="days",
                        to="billing.invoice",
                    ),
                ),
            ],
            options={"verbose_name_plural": "invoice days"},
        ),
        migrations.CreateModel(
            name="InvoiceFile",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "format",
                    models.CharField(
                        choices=[("pdf", "PDF"), ("csv", "CSV"), ("json", "JSON")], max_length=8
                    ),
                ),
                (
                    "edition",
                    models.CharField(
                        choices=[("issued", "Issued"), ("void", "Void")], max_length=8
                    ),
                ),
                ("content", models.BinaryField()),
                ("sha256", models.CharField(max_length=64)),
                ("rendered_at", models.DateTimeField()),
                (
                    "invoice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="files",
                        to="billing.invoice",
                    ),
                ),
            ],
            options={
                "ordering": ("id",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("invoice", "format", "edition"),
                        name="invoice_has_one_file_of_a_format",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="InvoiceMismatch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("text", models.TextField()),
                ("found_at", models.DateTimeField()),
                (
                    "invoice",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="mismatch",
                        to="billing.invoice",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "invoice mismatches",
                "ordering": ("-found_at",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("text", ""), _negated=True), name="mismatch_says_what"
                    )
                ],
            },
        ),
        *(
            migrations.RunSQL(
                NOT_EMPTIED.format(table=table), f"DROP TRIGGER is_not_emptied ON {table}"
            )
            for table in FACTS
        ),
        migrations.RunPython(take_rights, give_rights),
    ]
