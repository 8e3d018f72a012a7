from importlib import import_module

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# What an invoice says of earlier periods is frozen with it, as its lines are.
stays = import_module("billing.migrations.0008_final_invoices_stay")
FROZEN = {"billing_billedlateusage": stays.LINES, "billing_invoiceadjustment": stays.PARTS}


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0016_operator_keys"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BilledLateUsage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "meter",
                    models.CharField(
                        choices=[
                            ("cpu", "cpu"),
                            ("memory", "memory"),
                            ("network_egress", "network_egress"),
                            ("network_ingress", "network_ingress"),
                            ("storage", "storage"),
                            ("gpu", "gpu"),
                            ("disk_read", "disk_read"),
                            ("disk_write", "disk_write"),
                            ("cpu_allocated", "cpu_allocated"),
                            ("memory_allocated", "memory_allocated"),
                        ],
                        max_length=32,
                    ),
                ),
                ("sandbox_id", models.CharField(max_length=128)),
                ("life_id", models.BigIntegerField()),
                ("window_start", models.DateTimeField()),
                ("quantity", models.DecimalField(decimal_places=0, max_digits=40)),
            ],
            options={
                "verbose_name_plural": "billed late usage",
                "ordering": ("window_start", "id"),
            },
        ),
        migrations.CreateModel(
            name="InvoiceAdjustment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "component",
                    models.CharField(
                        choices=[
                            ("fee", "fee"),
                            ("fee_discount", "fee_discount"),
                            ("usage", "usage"),
                            ("discount", "discount"),
                            ("true_up", "true_up"),
                            ("credit", "credit"),
                        ],
                        max_length=16,
                    ),
                ),
                ("billing_period_start", models.DateTimeField()),
                ("billing_period_end", models.DateTimeField()),
            ],
            options={
                "ordering": ("id",),
            },
        ),
        migrations.CreateModel(
            name="UnbilledLateUsage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("billing_period_start", models.DateTimeField()),
                ("billing_period_end", models.DateTimeField()),
                (
                    "meter",
                    models.CharField(
                        choices=[
                            ("cpu", "cpu"),
                            ("memory", "memory"),
                            ("network_egress", "network_egress"),
                            ("network_ingress", "network_ingress"),
                            ("storage", "storage"),
                            ("gpu", "gpu"),
                            ("disk_read", "disk_read"),
                            ("disk_write", "disk_write"),
                            ("cpu_allocated", "cpu_allocated"),
                            ("memory_allocated", "memory_allocated"),
                        ],
                        max_length=32,
                    ),
                ),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("usage_not_kept", "usage_not_kept"),
                            ("invoice_void", "invoice_void"),
                            ("below_zero", "below_zero"),
                            ("prices_at_fault", "prices_at_fault"),
                            ("meter_not_charged", "meter_not_charged"),
                            ("no_price_in_currency", "no_price_in_currency"),
                            ("no_prices_in_force", "no_prices_in_force"),
                        ],
                        max_length=32,
                    ),
                ),
                ("quantity", models.DecimalField(decimal_places=0, max_digits=40)),
                ("noted_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "unbilled late usage",
                "ordering": ("-billing_period_start", "meter"),
            },
        ),
        migrations.RemoveConstraint(
            model_name="creditentry",
            name="credit_entry_has_the_sign_of_its_kind",
        ),
        migrations.RemoveConstraint(
            model_name="creditentry",
            name="credit_entry_names_the_invoice_it_paid_or_says_why",
        ),
        migrations.AlterField(
            model_name="creditentry",
            name="kind",
            field=models.CharField(
                choices=[
                    ("grant", "Grant"),
                    ("use", "Use"),
                    ("expire", "Expire"),
                    ("revoke", "Revoke"),
                    ("refund", "Refund"),
                    ("restore", "Restore"),
                    ("late_use", "Late Use"),
                    ("return", "Return"),
                    ("take_back", "Take Back"),
                ],
                max_length=16,
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("amount__gt", 0), ("kind__in", ["grant", "refund", "restore", "return"])
                    ),
                    models.Q(
                        ("amount__lt", 0),
                        ("kind__in", ["use", "late_use", "expire", "revoke", "take_back"]),
                    ),
                    _connector="OR",
                ),
                name="credit_entry_has_the_sign_of_its_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("invoice__isnull", False),
                        (
                            "kind__in",
                            ["use", "late_use", "refund", "restore", "return", "take_back"],
                        ),
                    ),
                    models.Q(
                        ("invoice__isnull", True),
                        ("kind__in", ["use", "late_use", "restore", "return"]),
                        models.Q(("reference", ""), _negated=True),
                        models.Q(("reason", ""), _negated=True),
                    ),
                    models.Q(
                        ("invoice__isnull", True), ("kind__in", ["grant", "expire", "revoke"])
                    ),
                    _connector="OR",
                ),
                name="credit_entry_names_the_invoice_it_paid_or_says_why",
            ),
        ),
        migrations.AddField(
            model_name="billedlateusage",
            name="invoice",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="billed_late_usage",
                to="billing.invoice",
            ),
        ),
        migrations.AddField(
            model_name="invoiceadjustment",
            name="grant",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="billing.creditgrant",
            ),
        ),
        migrations.AddField(
            model_name="invoiceadjustment",
            name="line",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="adjustment",
                to="billing.invoiceline",
            ),
        ),
        migrations.AddField(
            model_name="unbilledlateusage",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="unbilled_late_usage",
                to="billing.account",
            ),
        ),
        migrations.AddConstraint(
            model_name="billedlateusage",
            constraint=models.UniqueConstraint(
                fields=("invoice", "life_id", "meter", "window_start"),
                name="invoice_settles_late_usage_of_a_window_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="billedlateusage",
            constraint=models.CheckConstraint(
                condition=models.Q(("quantity", 0), _negated=True),
                name="billed_late_usage_is_not_nothing",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceadjustment",
            constraint=models.CheckConstraint(
                condition=models.Q(("billing_period_end__gt", models.F("billing_period_start"))),
                name="adjusted_period_ends_after_start",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceadjustment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("component", "credit"), ("grant__isnull", False)),
                    models.Q(
                        models.Q(("component", "credit"), _negated=True), ("grant__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="adjustment_of_credit_names_the_grant",
            ),
        ),
        migrations.AddConstraint(
            model_name="unbilledlateusage",
            constraint=models.UniqueConstraint(
                fields=("account", "billing_period_start", "meter", "reason"),
                name="unbilled_late_usage_of_a_meter_is_noted_once_a_period",
            ),
        ),
        *(
            migrations.RunSQL(
                stays.FROZEN_ROWS.format(table=table, **names),
                stays.NOT_FROZEN_ROWS.format(table=table),
            )
            for table, names in FROZEN.items()
        ),
        *(
            migrations.RunSQL(
                stays.NOT_EMPTIED.format(table=table), f"DROP TRIGGER is_not_emptied ON {table}"
            )
            for table in FROZEN
        ),
    ]
