import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F, Min, OuterRef, Subquery

import billing.models.columns

CURRENCIES = [
    "AED",
    "AFN",
    "ALL",
    "AMD",
    "AOA",
    "ARS",
    "AUD",
    "AWG",
    "AZN",
    "BAM",
    "BBD",
    "BDT",
    "BHD",
    "BIF",
    "BMD",
    "BND",
    "BOB",
    "BRL",
    "BSD",
    "BTN",
    "BWP",
    "BYN",
    "BZD",
    "CAD",
    "CDF",
    "CHF",
    "CLF",
    "CLP",
    "CNY",
    "COP",
    "CRC",
    "CUP",
    "CVE",
    "CZK",
    "DJF",
    "DKK",
    "DOP",
    "DZD",
    "EGP",
    "ERN",
    "ETB",
    "EUR",
    "FJD",
    "FKP",
    "GBP",
    "GEL",
    "GHS",
    "GIP",
    "GMD",
    "GNF",
    "GTQ",
    "GYD",
    "HKD",
    "HNL",
    "HTG",
    "HUF",
    "IDR",
    "ILS",
    "INR",
    "IQD",
    "IRR",
    "ISK",
    "JMD",
    "JOD",
    "JPY",
    "KES",
    "KGS",
    "KHR",
    "KMF",
    "KPW",
    "KRW",
    "KWD",
    "KYD",
    "KZT",
    "LAK",
    "LBP",
    "LKR",
    "LRD",
    "LSL",
    "LYD",
    "MAD",
    "MDL",
    "MGA",
    "MKD",
    "MMK",
    "MNT",
    "MOP",
    "MRU",
    "MUR",
    "MVR",
    "MWK",
    "MXN",
    "MYR",
    "MZN",
    "NAD",
    "NGN",
    "NIO",
    "NOK",
    "NPR",
    "NZD",
    "OMR",
    "PAB",
    "PEN",
    "PGK",
    "PHP",
    "PKR",
    "PLN",
    "PYG",
    "QAR",
    "RON",
    "RSD",
    "RUB",
    "RWF",
    "SAR",
    "SBD",
    "SCR",
    "SDG",
    "SEK",
    "SGD",
    "SHP",
    "SLE",
    "SOS",
    "SRD",
    "SSP",
    "STN",
    "SVC",
    "SYP",
    "SZL",
    "THB",
    "TJS",
    "TMT",
    "TND",
    "TOP",
    "TRY",
    "TTD",
    "TWD",
    "TZS",
    "UAH",
    "UGX",
    "USD",
    "UYI",
    "UYU",
    "UYW",
    "UZS",
    "VED",
    "VES",
    "VND",
    "VUV",
    "WST",
    "XAF",
    "XCD",
    "XCG",
    "XOF",
    "XPF",
    "YER",
    "ZAR",
    "ZMW",
    "ZWG",
]


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection.alias
    grants = apps.get_model("billing", "CreditGrant").objects.using(database)
    subscriptions = apps.get_model("billing", "Subscription").objects.using(database)
    owners = subscriptions.filter(pk=OuterRef("subscription")).values("account_id")
    entries = apps.get_model("billing", "CreditEntry").objects.using(database)
    first = entries.filter(grant=OuterRef("pk")).values("grant").annotate(at=Min("recorded_at"))
    grants.update(
        account_id=Subquery(owners),
        effective_at=F("period_start"),
        expires_at=F("period_end"),
        granted_at=F("period_start"),
    )
    subscriptions.update(recorded_at=F("started_at"))
    grants.filter(entries__isnull=False).update(granted_at=Subquery(first.values("at")))
    lines = apps.get_model("billing", "InvoiceLine").objects.using(database)
    lines.filter(kind="usage").update(charge="per_unit")
    # Checks that wait for the commit would keep the tables from being altered below.
    schema_editor.execute("SET CONSTRAINTS ALL IMMEDIATE")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0004_prices_plans_discounts_credits"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="creditgrant",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="credit_grants",
                to="billing.account",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant", name="effective_at", field=models.DateTimeField()
        ),
        migrations.AlterField(
            model_name="creditgrant", name="granted_at", field=models.DateTimeField()
        ),
        migrations.AlterField(
            model_name="subscription", name="recorded_at", field=models.DateTimeField()
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(fields=["expires_at"], name="credit_grants_by_expiry"),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        CURRENCIES,
                    )
                ),
                name="account_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=billing.models.columns.IsTimeZone("time_zone"),
                name="account_time_zone_is_known",
                violation_error_message="Use an IANA time zone, as in Europe/Berlin.",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("next_time_zone", ""),
                    billing.models.columns.IsTimeZone("next_time_zone"),
                    _connector="OR",
                ),
                name="account_next_time_zone_is_known",
                violation_error_message="Use an IANA time zone, as in Europe/Berlin.",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("anchor_day__gte", 1),
                    ("anchor_day__lte", 31),
                    models.Q(
                        ("next_anchor_day__isnull", True),
                        models.Q(("next_anchor_day__gte", 1), ("next_anchor_day__lte", 31)),
                        _connector="OR",
                    ),
                ),
                name="account_anchor_day_is_a_day_of_a_month",
                violation_error_message="Use a day of the month, 1 to 31.",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("cycle_changes_at__isnull", True),
                        ("next_anchor_day__isnull", True),
                        ("next_time_zone", ""),
                    ),
                    models.Q(
                        models.Q(("next_time_zone", ""), _negated=True),
                        ("cycle_changes_at__isnull", False),
                        ("next_anchor_day__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="account_change_of_cycle_says_to_what_and_when",
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("top_up_amount__isnull", True), ("top_up_threshold__isnull", True)),
                    models.Q(
                        ("top_up_amount__gt", 0),
                        ("top_up_amount__isnull", False),
                        ("top_up_threshold__gte", 0),
                        ("top_up_threshold__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="account_top_up_has_a_threshold_and_an_amount",
                violation_error_message="Give automatic top-up both a threshold, 0 or more, and an amount above 0.",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("invoice__isnull", False), ("kind__in", ["use", "refund"])),
                    models.Q(
                        ("invoice__isnull", True),
                        ("kind", "use"),
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
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "grant")),
                fields=("grant",),
                name="credit_is_granted_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.UniqueConstraint(
                condition=models.Q(("reference", ""), _negated=True),
                fields=("grant", "kind", "reference"),
                name="credit_is_used_by_hand_once_under_a_reference",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "monthly"),
                        ("period_end__gt", models.F("period_start")),
                        ("period_end__isnull", False),
                        ("period_start__isnull", False),
                        ("subscription__isnull", False),
                    ),
                    models.Q(
                        models.Q(("kind", "monthly"), _negated=True),
                        models.Q(("reason", ""), _negated=True),
                        ("period_end__isnull", True),
                        ("period_start__isnull", True),
                        ("subscription__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="monthly_credit_names_its_subscription_other_credit_its_reason",
                violation_error_message="Say in reason what the credit is for.",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("reference", ""), _negated=True),
                fields=("account", "reference"),
                name="credit_is_granted_once_under_a_reference",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__isnull", True),
                    ("expires_at__gt", models.F("effective_at")),
                    _connector="OR",
                ),
                name="credit_expires_after_it_is_effective",
                violation_error_message="Let expires_at be later than effective_at.",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    ("kind__in", ["usage", "final"]), models.Q(("status", "void"), _negated=True)
                ),
                fields=("account", "period_start", "period_end"),
                name="usage_of_an_account_is_invoiced_once_a_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(
                    ("kind__in", ["usage", "final"]), models.Q(("status", "void"), _negated=True)
                ),
                expressions=[
                    (
                        billing.models.columns.TsTzRange(
                            "period_start",
                            "period_end",
                            django.contrib.postgres.fields.ranges.RangeBoundary(),
                        ),
                        "&&",
                    ),
                    ("account", "="),
                ],
                name="usage_invoice_periods_do_not_overlap",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("tax_is_inclusive", False),
                        (
                            "total_amount",
                            django.db.models.expressions.CombinedExpression(
                                django.db.models.expressions.CombinedExpression(
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            django.db.models.expressions.CombinedExpression(
                                                django.db.models.expressions.CombinedExpression(
                                                    models.F("subscription_fee"),
                                                    "+",
                                                    models.F("usage_fee"),
                                                ),
                                                "-",
                                                models.F("discounts"),
                                            ),
                                            "-",
                                            models.F("credits_used"),
                                        ),
                                        "+",
                                        models.F("adjustments"),
                                    ),
                                    "+",
                                    models.F("credited"),
                                ),
                                "+",
                                models.F("tax"),
                            ),
                        ),
                    ),
                    models.Q(
                        ("tax_is_inclusive", True),
                        (
                            "total_amount",
                            django.db.models.expressions.CombinedExpression(
                                django.db.models.expressions.CombinedExpression(
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            django.db.models.expressions.CombinedExpression(
                                                models.F("subscription_fee"),
                                                "+",
                                                models.F("usage_fee"),
                                            ),
                                            "-",
                                            models.F("discounts"),
                                        ),
                                        "-",
                                        models.F("credits_used"),
                                    ),
                                    "+",
                                    models.F("adjustments"),
                                ),
                                "+",
                                models.F("credited"),
                            ),
                        ),
                    ),
                    _connector="OR",
                ),
                name="invoice_total_is_the_sum_of_its_parts",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "amount_due",
                        django.db.models.expressions.CombinedExpression(
                            models.F("total_amount"), "-", models.F("prepaid_used")
                        ),
                    )
                ),
                name="invoice_due_is_its_total_less_prepaid_credit",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount_due__gte", 0),
                    ("credited__gte", 0),
                    ("credits_used__gte", 0),
                    ("discounts__gte", 0),
                    ("prepaid_used__gte", 0),
                    ("total_amount__gte", 0),
                    ("usage_fee__gte", 0),
                ),
                name="invoice_figures_are_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        CURRENCIES,
                    )
                ),
                name="invoice_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "usage"),
                        models.Q(("meter", ""), _negated=True),
                        models.Q(("charge", ""), _negated=True),
                    ),
                    models.Q(
                        models.Q(("kind", "usage"), _negated=True), ("charge", ""), ("meter", "")
                    ),
                    _connector="OR",
                ),
                name="usage_line_names_its_meter_and_charge",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("discount__gte", 0),
                    ("quantity__gte", 0),
                    ("unit_size__gt", 0),
                    models.Q(("unit_price__isnull", True), ("unit_price__gte", 0), _connector="OR"),
                    models.Q(
                        models.Q(("amount__gte", 0), ("kind__in", ["fee", "true_up", "usage"])),
                        models.Q(("amount__lte", 0), ("kind__in", ["unused_fee", "fee_discount"])),
                        _connector="OR",
                    ),
                ),
                name="invoice_line_has_the_sign_of_its_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        CURRENCIES,
                    )
                ),
                name="plan_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="plan",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("monthly_fee__isnull", True), ("monthly_fee__gte", 0), _connector="OR"
                    ),
                    models.Q(("annual_fee__isnull", True), ("annual_fee__gte", 0), _connector="OR"),
                    ("monthly_credits__gte", 0),
                ),
                name="plan_fees_and_credits_are_not_negative",
                violation_error_message="Use 0 or more for fees and credits.",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("unit_price__isnull", True), ("unit_price__gte", 0), _connector="OR"),
                    models.Q(
                        ("fee_per_event__isnull", True), ("fee_per_event__gte", 0), _connector="OR"
                    ),
                    models.Q(
                        ("maximum__isnull", True),
                        ("maximum__gte", models.F("minimum")),
                        _connector="OR",
                    ),
                    ("free_units__gte", 0),
                    ("minimum__gte", 0),
                ),
                name="price_is_not_negative_nor_its_maximum_below_its_minimum",
                violation_error_message="Use 0 or more for every price, allowance and minimum, and a maximum that is not below the minimum.",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("percent__isnull", True),
                    models.Q(("percent__gte", 0), ("percent__lte", 100)),
                    _connector="OR",
                ),
                name="price_percent_is_from_0_to_100",
                violation_error_message="Use a percent from 0 to 100.",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("charge", "per_unit"),
                        ("fee_per_event__isnull", True),
                        ("maximum__isnull", True),
                        ("package_size__isnull", True),
                        ("percent__isnull", True),
                        ("unit_price__isnull", False),
                    ),
                    models.Q(
                        ("charge", "package"),
                        ("fee_per_event__isnull", True),
                        ("maximum__isnull", True),
                        ("package_size__gt", 0),
                        ("package_size__isnull", False),
                        ("percent__isnull", True),
                        ("unit_price__isnull", False),
                    ),
                    models.Q(
                        ("charge", "percentage"),
                        ("package_size__isnull", True),
                        ("percent__isnull", False),
                        ("unit_price__isnull", True),
                    ),
                    models.Q(
                        ("charge__in", ["graduated", "volume"]),
                        ("fee_per_event__isnull", True),
                        ("maximum__isnull", True),
                        ("package_size__isnull", True),
                        ("percent__isnull", True),
                        ("unit_price__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="price_has_the_columns_of_its_charge_and_no_others",
                violation_error_message="Per unit needs unit_price; package needs unit_price and package_size; percentage needs percent, and may have fee_per_event and maximum; graduated and volume need tiers. Leave the rest empty.",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        CURRENCIES,
                    )
                ),
                name="price_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__isnull", True),
                    ("expires_at__gt", models.F("started_at")),
                    _connector="OR",
                ),
                name="subscription_ends_after_start",
                violation_error_message="Let expires_at be later than started_at.",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(("fee__gte", 0), ("monthly_credits__gte", 0)),
                name="subscription_fee_and_credits_are_not_negative",
                violation_error_message="Use 0 or more for fee and credits.",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("commitment_minimum__isnull", True), ("commitment_months__isnull", True)
                    ),
                    models.Q(
                        ("commitment_minimum__gt", 0),
                        ("commitment_minimum__isnull", False),
                        ("commitment_months__gt", 0),
                        ("commitment_months__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="commitment_has_a_minimum_and_a_term",
                violation_error_message="Give a commitment both a minimum above 0 and a term of months, or neither.",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("ends_period", False), ("expires_at__isnull", False), _connector="OR"
                ),
                name="subscription_ends_a_period_only_where_it_ends",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.UniqueConstraint(
                condition=models.Q(("expires_at__isnull", True)),
                fields=("account",),
                name="account_has_one_open_subscription",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                expressions=[
                    (
                        billing.models.columns.TsTzRange(
                            "started_at",
                            "expires_at",
                            django.contrib.postgres.fields.ranges.RangeBoundary(),
                        ),
                        "&&",
                    ),
                    ("account", "="),
                ],
                name="subscriptions_of_an_account_do_not_overlap",
                violation_error_message="The account is on a plan in that time.",
            ),
        ),
        migrations.AlterConstraint(
            model_name="account",
            name="account_tax_rate_is_a_fraction",
            constraint=models.CheckConstraint(
                condition=models.Q(("tax_rate__gte", 0), ("tax_rate__lt", 1)),
                name="account_tax_rate_is_a_fraction",
                violation_error_message="Use a fraction, as in 0.19 for 19 %%.",
            ),
        ),
        migrations.AlterConstraint(
            model_name="price",
            name="meter_has_one_price_in_a_version_and_currency",
            constraint=models.UniqueConstraint(
                fields=("version", "meter", "currency"),
                name="meter_has_one_price_in_a_version_and_currency",
                violation_error_message="This version has a price for the meter. Change that one.",
            ),
        ),
        migrations.AlterConstraint(
            model_name="pricebookversion",
            name="price_book_version_ends_after_start",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("effective_to__isnull", True),
                    ("effective_to__gt", models.F("effective_from")),
                    _connector="OR",
                ),
                name="price_book_version_ends_after_start",
                violation_error_message="Let effective_to be later than effective_from.",
            ),
        ),
        migrations.AlterConstraint(
            model_name="pricebookversion",
            name="versions_of_a_price_book_do_not_overlap",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                expressions=[
                    (
                        billing.models.columns.TsTzRange(
                            "effective_from",
                            "effective_to",
                            django.contrib.postgres.fields.ranges.RangeBoundary(),
                        ),
                        "&&",
                    ),
                    ("book", "="),
                ],
                name="versions_of_a_price_book_do_not_overlap",
                violation_error_message="Another version of this book is in force in that time. End it first, by its effective_to, or let this one start later.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        CURRENCIES,
                    )
                ),
                name="discount_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(("percent__gte", 0), ("percent__lte", 100)),
                name="discount_percent_is_from_0_to_100",
                violation_error_message="Use a percent from 0 to 100.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount__gte", 0),
                    ("min_amount__gte", 0),
                    models.Q(("percent__gt", 0), ("amount__gt", 0), _connector="OR"),
                ),
                name="discount_takes_a_percent_or_an_amount_off",
                violation_error_message="Give a percent or an amount above 0, and use 0 or more for min_amount.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("account__isnull", True), ("plan__isnull", True), ("scope", "all")),
                    models.Q(("account__isnull", True), ("plan__isnull", False), ("scope", "plan")),
                    models.Q(
                        ("account__isnull", False), ("plan__isnull", True), ("scope", "account")
                    ),
                    _connector="OR",
                ),
                name="discount_names_what_its_scope_says",
                violation_error_message="Name a plan for scope plan, an account for scope account, nothing for all.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "commitment"), ("min_months", 0), _connector="OR"),
                name="discount_term_is_for_commitments",
                violation_error_message="Use min_months with commitment rules only.",
            ),
        ),
        migrations.AddConstraint(
            model_name="discountrule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("valid_from__isnull", True),
                    ("valid_to__isnull", True),
                    ("valid_to__gt", models.F("valid_from")),
                    _connector="OR",
                ),
                name="discount_ends_after_start",
                violation_error_message="Let valid_to be later than valid_from.",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoicediscount",
            constraint=models.UniqueConstraint(
                fields=("invoice", "position"), name="discounts_of_an_invoice_have_an_order"
            ),
        ),
        migrations.AddConstraint(
            model_name="invoicediscount",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0), ("amount__lte", models.F("base_amount"))),
                name="discount_takes_something_and_not_more_than_its_base",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoicelinepart",
            constraint=models.UniqueConstraint(
                fields=("line", "position"), name="parts_of_an_invoice_line_have_an_order"
            ),
        ),
        migrations.AddConstraint(
            model_name="pricetier",
            constraint=models.UniqueConstraint(
                fields=("price", "position"), name="tiers_of_a_price_have_an_order"
            ),
        ),
        migrations.AddConstraint(
            model_name="pricetier",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("flat_fee__gte", 0),
                    ("unit_price__gte", 0),
                    models.Q(("up_to__isnull", True), ("up_to__gt", 0), _connector="OR"),
                ),
                name="tier_is_not_negative_and_ends_above_0",
                violation_error_message="Use 0 or more for prices and fees, and up_to above 0.",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0)),
                name="top_up_is_above_0",
                violation_error_message="Use an amount above 0.",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    ("given_up_at__isnull", True), ("grant__isnull", True), ("is_automatic", True)
                ),
                fields=("account",),
                name="account_has_one_automatic_top_up_waiting",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("grant__isnull", True), ("given_up_at__isnull", True), _connector="OR"
                ),
                name="top_up_is_paid_or_given_up",
            ),
        ),
        migrations.AddConstraint(
            model_name="unpricedusage",
            constraint=models.UniqueConstraint(
                fields=("account", "meter", "period_start"),
                name="unpriced_usage_of_a_meter_is_noted_once_a_span",
            ),
        ),
    ]
