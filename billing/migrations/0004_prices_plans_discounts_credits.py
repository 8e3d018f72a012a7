# Columns first; the rows they need and what must hold of them come next.

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions
from django.conf import settings
from django.db import migrations, models

# PostgreSQL takes abbreviations and POSIX rules for time zones too; a name of the IANA data base
# has a slash, but for a few.
IS_TIME_ZONE = """
CREATE FUNCTION billing_is_time_zone(name text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF name !~ '/' AND name NOT IN (
        'CET', 'CST6CDT', 'Cuba', 'EET', 'EST', 'EST5EDT', 'Egypt', 'Eire', 'Factory', 'GB',
        'GB-Eire', 'GMT', 'GMT+0', 'GMT-0', 'GMT0', 'Greenwich', 'HST', 'Hongkong', 'Iceland',
        'Iran', 'Israel', 'Jamaica', 'Japan', 'Kwajalein', 'Libya', 'MET', 'MST', 'MST7MDT',
        'NZ', 'NZ-CHAT', 'Navajo', 'PRC', 'PST8PDT', 'Poland', 'Portugal', 'ROC', 'ROK',
        'Singapore', 'Turkey', 'UCT', 'UTC', 'Universal', 'W-SU', 'WET', 'Zulu', 'localtime'
    ) THEN
        RETURN false;
    END IF;
    PERFORM now() AT TIME ZONE name;
    RETURN true;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END $$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_more_meters"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(IS_TIME_ZONE, "DROP FUNCTION billing_is_time_zone(text)"),
        migrations.CreateModel(
            name="DiscountRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("volume", "volume"),
                            ("commitment", "commitment"),
                            ("annual", "annual"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "scope",
                    models.CharField(
                        choices=[("all", "All"), ("plan", "Plan"), ("account", "Account")],
                        default="all",
                        max_length=16,
                    ),
                ),
                ("currency", models.CharField(default="USD", max_length=3)),
                ("min_amount", models.DecimalField(decimal_places=4, default=0, max_digits=20)),
                ("min_months", models.PositiveSmallIntegerField(default=0)),
                ("percent", models.DecimalField(decimal_places=4, default=0, max_digits=7)),
                ("amount", models.DecimalField(decimal_places=4, default=0, max_digits=20)),
                ("priority", models.IntegerField(default=0)),
                ("is_active", models.BooleanField(default=True)),
                ("valid_from", models.DateField(blank=True, null=True)),
                ("valid_to", models.DateField(blank=True, null=True)),
            ],
            options={
                "ordering": ("priority", "name"),
            },
        ),
        migrations.CreateModel(
            name="InvoiceDiscount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveSmallIntegerField()),
                ("name", models.CharField(max_length=100)),
                (
                    "base",
                    models.CharField(
                        choices=[("usage_fee", "Usage Fee"), ("annual_fee", "Annual Fee")],
                        max_length=16,
                    ),
                ),
                ("base_amount", models.DecimalField(decimal_places=4, max_digits=20)),
                ("percent", models.DecimalField(decimal_places=4, max_digits=7)),
                ("fixed_amount", models.DecimalField(decimal_places=4, max_digits=20)),
                ("amount", models.DecimalField(decimal_places=4, max_digits=20)),
            ],
            options={
                "ordering": ("position",),
            },
        ),
        migrations.CreateModel(
            name="InvoiceLinePart",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveSmallIntegerField()),
                ("kind", models.CharField(max_length=16)),
                ("tier", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("quantity", models.DecimalField(decimal_places=6, max_digits=46)),
                ("unit_size", models.DecimalField(decimal_places=0, max_digits=20)),
                ("unit_price", models.DecimalField(decimal_places=12, max_digits=24)),
            ],
            options={
                "ordering": ("position",),
            },
        ),
        migrations.CreateModel(
            name="PriceTier",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveSmallIntegerField()),
                (
                    "up_to",
                    models.DecimalField(blank=True, decimal_places=6, max_digits=30, null=True),
                ),
                ("unit_price", models.DecimalField(decimal_places=12, max_digits=24)),
                ("flat_fee", models.DecimalField(decimal_places=4, default=0, max_digits=20)),
            ],
            options={
                "ordering": ("price", "position"),
            },
        ),
        migrations.CreateModel(
            name="TopUp",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount", models.DecimalField(decimal_places=4, max_digits=20)),
                ("is_automatic", models.BooleanField(default=False)),
                ("requested_at", models.DateTimeField()),
                ("given_up_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "top-up",
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="UnpricedUsage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("billing_period_start", models.DateTimeField()),
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
                            ("meter_not_charged", "meter_not_charged"),
                            ("no_price_in_currency", "no_price_in_currency"),
                            ("no_prices_in_force", "no_prices_in_force"),
                        ],
                        max_length=32,
                    ),
                ),
                ("quantity", models.DecimalField(decimal_places=0, max_digits=40)),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                ("noted_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "unpriced usage",
                "ordering": ("-period_start", "meter"),
            },
        ),
        migrations.AlterModelOptions(
            name="plan",
            options={
                "ordering": (models.OrderBy(models.F("monthly_fee"), nulls_last=True), "name")
            },
        ),
        migrations.RemoveConstraint(
            model_name="account",
            name="account_has_a_currency_code",
        ),
        migrations.RemoveConstraint(
            model_name="creditentry",
            name="credit_entry_names_the_invoice_it_paid",
        ),
        migrations.RemoveConstraint(
            model_name="creditentry",
            name="credit_is_granted_expired_and_revoked_once",
        ),
        migrations.RemoveConstraint(
            model_name="creditgrant",
            name="credit_period_ends_after_start",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="usage_of_an_account_is_invoiced_once_a_period",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="usage_invoice_periods_do_not_overlap",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="invoice_total_is_the_sum_of_its_parts",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="invoice_due_is_its_total",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="invoice_figures_are_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="invoice",
            name="invoice_has_a_currency_code",
        ),
        migrations.RemoveConstraint(
            model_name="invoiceline",
            name="usage_line_names_its_meter",
        ),
        migrations.RemoveConstraint(
            model_name="invoiceline",
            name="invoice_line_figures_are_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="plan",
            name="plan_has_a_currency_code",
        ),
        migrations.RemoveConstraint(
            model_name="plan",
            name="plan_fee_is_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="plan",
            name="plan_credits_are_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="price",
            name="unit_price_is_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="price",
            name="price_has_a_currency_code",
        ),
        migrations.RemoveConstraint(
            model_name="subscription",
            name="subscription_ends_after_start",
        ),
        migrations.RemoveConstraint(
            model_name="subscription",
            name="subscription_fee_and_credits_are_not_negative",
        ),
        migrations.RemoveConstraint(
            model_name="subscription",
            name="account_has_one_active_subscription",
        ),
        migrations.RemoveConstraint(
            model_name="subscription",
            name="subscriptions_of_an_account_do_not_overlap",
        ),
        migrations.RenameField(
            model_name="subscription",
            old_name="ended_at",
            new_name="expires_at",
        ),
        migrations.RenameField(
            model_name="subscription",
            old_name="monthly_fee",
            new_name="fee",
        ),
        migrations.AddField(
            model_name="account",
            name="anchor_day",
            field=models.PositiveSmallIntegerField(default=1),
        ),
        migrations.AddField(
            model_name="account",
            name="cycle_changes_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="account",
            name="next_anchor_day",
            field=models.PositiveSmallIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="account",
            name="next_time_zone",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddField(
            model_name="account",
            name="tax_is_inclusive",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="account",
            name="top_up_amount",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="account",
            name="top_up_threshold",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="creditentry",
            name="reason",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddField(
            model_name="creditentry",
            name="recorded_by",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="creditentry",
            name="reference",
            field=models.CharField(blank=True, default="", max_length=100),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="account",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="credit_grants",
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="effective_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="expires_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="granted_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="granted_by",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="kind",
            field=models.CharField(
                choices=[
                    ("monthly", "monthly"),
                    ("promotional", "promotional"),
                    ("prepaid", "prepaid"),
                ],
                default="monthly",
                max_length=16,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="priority",
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="reason",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="reference",
            field=models.CharField(blank=True, default="", max_length=100),
        ),
        migrations.AddField(
            model_name="invoice",
            name="credited",
            field=models.DecimalField(decimal_places=4, default=0, max_digits=20),
        ),
        migrations.AddField(
            model_name="invoice",
            name="prepaid_used",
            field=models.DecimalField(decimal_places=4, default=0, max_digits=20),
        ),
        migrations.AddField(
            model_name="invoice",
            name="tax_is_inclusive",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="invoiceline",
            name="charge",
            field=models.CharField(
                blank=True,
                choices=[
                    ("per_unit", "per unit"),
                    ("graduated", "graduated"),
                    ("volume", "volume"),
                    ("package", "package"),
                    ("percentage", "percentage"),
                ],
                default="",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="invoiceline",
            name="discount",
            field=models.DecimalField(decimal_places=4, default=0, max_digits=20),
        ),
        migrations.AddField(
            model_name="plan",
            name="annual_fee",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="plan",
            name="credit_rollover_periods",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="plan",
            name="is_offered",
            field=models.BooleanField(default=True),
        ),
        migrations.AddField(
            model_name="plan",
            name="stripe_price_id",
            field=models.CharField(blank=True, default="", max_length=100),
        ),
        migrations.AddField(
            model_name="plan",
            name="trial_days",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="price",
            name="charge",
            field=models.CharField(
                choices=[
                    ("per_unit", "per unit"),
                    ("graduated", "graduated"),
                    ("volume", "volume"),
                    ("package", "package"),
                    ("percentage", "percentage"),
                ],
                default="per_unit",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="fee_per_event",
            field=models.DecimalField(blank=True, decimal_places=12, max_digits=24, null=True),
        ),
        migrations.AddField(
            model_name="price",
            name="free_units",
            field=models.DecimalField(decimal_places=6, default=0, max_digits=30),
        ),
        migrations.AddField(
            model_name="price",
            name="maximum",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="price",
            name="minimum",
            field=models.DecimalField(decimal_places=4, default=0, max_digits=20),
        ),
        migrations.AddField(
            model_name="price",
            name="package_size",
            field=models.DecimalField(blank=True, decimal_places=6, max_digits=30, null=True),
        ),
        migrations.AddField(
            model_name="price",
            name="percent",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=7, null=True),
        ),
        migrations.AddField(
            model_name="pricebook",
            name="account",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="price_books",
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="commitment_minimum",
            field=models.DecimalField(blank=True, decimal_places=4, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="commitment_months",
            field=models.PositiveSmallIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="credit_rollover_periods",
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="subscription",
            name="ends_period",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="subscription",
            name="interval",
            field=models.CharField(
                choices=[("monthly", "monthly"), ("annual", "annual")],
                default="monthly",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="price_book",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="subscriptions",
                to="billing.pricebook",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="recorded_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="trial_ends_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="period_end",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="period_start",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="subscription",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="credit_grants",
                to="billing.subscription",
            ),
        ),
        migrations.AlterField(
            model_name="invoice",
            name="kind",
            field=models.CharField(
                choices=[("usage", "Usage"), ("final", "Final")], default="usage", max_length=16
            ),
        ),
        migrations.AlterField(
            model_name="invoiceline",
            name="kind",
            field=models.CharField(
                choices=[
                    ("fee", "Fee"),
                    ("unused_fee", "Unused Fee"),
                    ("fee_discount", "Fee Discount"),
                    ("true_up", "True Up"),
                    ("usage", "Usage"),
                ],
                max_length=16,
            ),
        ),
        migrations.AlterField(
            model_name="invoiceline",
            name="unit_price",
            field=models.DecimalField(blank=True, decimal_places=12, max_digits=24, null=True),
        ),
        migrations.AlterField(
            model_name="price",
            name="unit_price",
            field=models.DecimalField(blank=True, decimal_places=12, max_digits=24, null=True),
        ),
        migrations.AddField(
            model_name="discountrule",
            name="account",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="discountrule",
            name="plan",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="billing.plan",
            ),
        ),
        migrations.AddField(
            model_name="invoicediscount",
            name="invoice",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="applied_discounts",
                to="billing.invoice",
            ),
        ),
        migrations.AddField(
            model_name="invoicediscount",
            name="rule",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="billing.discountrule",
            ),
        ),
        migrations.AddField(
            model_name="invoicelinepart",
            name="line",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="parts",
                to="billing.invoiceline",
            ),
        ),
        migrations.AddField(
            model_name="pricetier",
            name="price",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tiers",
                to="billing.price",
            ),
        ),
        migrations.AddField(
            model_name="topup",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="top_ups",
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="topup",
            name="grant",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="top_up",
                to="billing.creditgrant",
            ),
        ),
        migrations.AddField(
            model_name="unpricedusage",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="unpriced_usage",
                to="billing.account",
            ),
        ),
    ]
