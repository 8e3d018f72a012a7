from importlib import import_module

import django.db.models.deletion
import django.db.models.expressions
from django.apps.registry import Apps
from django.conf import settings
from django.db import connections, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

stays = import_module("billing.migrations.0008_final_invoices_stay")

# Whatever the services do: the notes of an invoice take back no more than it asked for.
FITS = """
CREATE FUNCTION billing_credit_note_fits() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    invoice billing_invoice;
    so_far record;
BEGIN
    -- Two notes of one invoice wait for each other here, so that the second sees the first.
    SELECT * INTO invoice FROM billing_invoice WHERE id = NEW.invoice_id FOR NO KEY UPDATE;
    IF invoice.number IS NULL OR invoice.status = 'void' OR invoice.kind NOT IN ('usage', 'final')
       OR invoice.currency <> NEW.currency THEN
        RAISE EXCEPTION 'Invoice % cannot be credited.', NEW.invoice_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credit_note_is_of_a_final_invoice';
    END IF;
    SELECT COALESCE(sum(net), 0) + NEW.net AS net, COALESCE(sum(tax), 0) + NEW.tax AS tax,
           COALESCE(sum(off_due), 0) + NEW.off_due AS off_due
      INTO so_far FROM billing_creditnote WHERE invoice_id = NEW.invoice_id;
    IF so_far.tax > invoice.tax OR so_far.net > invoice.total_amount - invoice.tax
       OR so_far.off_due > invoice.amount_due THEN
        RAISE EXCEPTION 'Credit notes of invoice % would take back more than it asked for.',
            invoice.number
            USING ERRCODE = 'check_violation',
            CONSTRAINT = 'credit_notes_take_back_no_more_than_the_invoice';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credit_note_fits BEFORE INSERT ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_credit_note_fits();

CREATE FUNCTION billing_credit_note_adds_up() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM billing_creditnote note JOIN billing_invoice invoice ON invoice.id = note.invoice_id
      WHERE note.id = NEW.credit_note_id AND (
        SELECT sum(amount) FROM billing_creditnoteline WHERE credit_note_id = note.id
      ) = CASE WHEN invoice.tax_is_inclusive THEN note.total ELSE note.net END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'The lines of credit note % do not sum to it.', NEW.credit_note_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'credit_note_is_the_sum_of_its_lines';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER credit_note_adds_up AFTER INSERT ON billing_creditnoteline
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION billing_credit_note_adds_up();

CREATE FUNCTION billing_corrected_invoice_is_not_void() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM billing_creditnote WHERE invoice_id = NEW.id) THEN
        RAISE EXCEPTION 'Invoice % has credit notes. It cannot be voided.', NEW.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_with_credit_notes_stands';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_with_credit_notes_stands BEFORE UPDATE OF status ON billing_invoice
    FOR EACH ROW WHEN (NEW.status = 'void')
    EXECUTE FUNCTION billing_corrected_invoice_is_not_void();
"""
FITS_NO_MORE = """
DROP TRIGGER invoice_with_credit_notes_stands ON billing_invoice;
DROP FUNCTION billing_corrected_invoice_is_not_void();
DROP TRIGGER credit_note_adds_up ON billing_creditnoteline;
DROP FUNCTION billing_credit_note_adds_up();
DROP TRIGGER credit_note_fits ON billing_creditnote;
DROP FUNCTION billing_credit_note_fits();
"""

# A note and what led to it are facts; a correction moves once, from proposed to decided.
STAY = """
CREATE FUNCTION billing_correction_stays() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'billing_correction' AND OLD.status = 'proposed'
       AND to_jsonb(NEW) - 'status' - 'decided_by_id' - 'decided_at' - 'settlement'
         = to_jsonb(OLD) - 'status' - 'decided_by_id' - 'decided_at' - 'settlement' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'A row of % is a fact. It is not changed.', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = 'correction_stays';
END $$;
"""
FACTS = ("billing_creditnote", "billing_creditnoteline", "billing_correctionline")
TABLES = (*FACTS, "billing_correction")
STAYS = """
CREATE TRIGGER correction_stays BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION billing_correction_stays();
"""


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    facts = ", ".join(FACTS)
    schema_editor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {facts} FROM {role}")
    schema_editor.execute(f"REVOKE DELETE, TRUNCATE ON billing_correction FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT UPDATE, DELETE ON {', '.join(TABLES)} TO {role}")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0019_transitions_that_are_told_of"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name="invoiceadjustment",
            name="component",
            field=models.CharField(
                choices=[
                    ("fee", "fee"),
                    ("fee_discount", "fee_discount"),
                    ("usage", "usage"),
                    ("discount", "discount"),
                    ("true_up", "true_up"),
                    ("credit", "credit"),
                    ("amount", "amount"),
                ],
                max_length=16,
            ),
        ),
        migrations.CreateModel(
            name="Correction",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "origin",
                    models.CharField(
                        choices=[("rerating", "Rerating"), ("by_hand", "By Hand")], max_length=16
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("proposed", "Proposed"),
                            ("applied", "Applied"),
                            ("rejected", "Rejected"),
                        ],
                        default="proposed",
                        max_length=16,
                    ),
                ),
                (
                    "settlement",
                    models.CharField(
                        choices=[
                            ("credit_note", "Credit Note"),
                            ("adjustment", "Adjustment"),
                            ("none", "None"),
                        ],
                        max_length=16,
                    ),
                ),
                ("currency", models.CharField(max_length=3)),
                ("net", models.DecimalField(decimal_places=4, max_digits=20)),
                ("tax", models.DecimalField(decimal_places=4, default=0, max_digits=20)),
                ("reason", models.CharField(max_length=200)),
                ("reference", models.CharField(blank=True, default="", max_length=100)),
                ("proposed_at", models.DateTimeField()),
                ("decided_at", models.DateTimeField(blank=True, null=True)),
                (
                    "author",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "decided_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "invoice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="corrections",
                        to="billing.invoice",
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="CorrectionLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveIntegerField()),
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
                            ("amount", "amount"),
                        ],
                        max_length=16,
                    ),
                ),
                ("description", models.CharField(max_length=200)),
                (
                    "meter",
                    models.CharField(
                        blank=True,
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
                        default="",
                        max_length=32,
                    ),
                ),
                ("quantity", models.DecimalField(decimal_places=0, default=0, max_digits=40)),
                ("amount", models.DecimalField(decimal_places=4, max_digits=20)),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                (
                    "correction",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="billing.correction",
                    ),
                ),
                (
                    "grant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.creditgrant",
                    ),
                ),
                (
                    "invoice_line",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="corrections",
                        to="billing.invoiceline",
                    ),
                ),
            ],
            options={
                "ordering": ("position",),
            },
        ),
        migrations.AddField(
            model_name="invoiceadjustment",
            name="correction_line",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="adjustments",
                to="billing.correctionline",
            ),
        ),
        migrations.CreateModel(
            name="CreditNote",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=32, unique=True)),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(max_length=200)),
                ("net", models.DecimalField(decimal_places=4, max_digits=20)),
                ("tax", models.DecimalField(decimal_places=4, max_digits=20)),
                ("total", models.DecimalField(decimal_places=4, max_digits=20)),
                ("off_due", models.DecimalField(decimal_places=4, max_digits=20)),
                ("as_credit", models.DecimalField(decimal_places=4, max_digits=20)),
                ("issued_on", models.DateField()),
                ("issued_at", models.DateTimeField()),
                (
                    "approved_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "author",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "correction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_note",
                        to="billing.correction",
                    ),
                ),
                (
                    "grant",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_note",
                        to="billing.creditgrant",
                    ),
                ),
                (
                    "invoice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_notes",
                        to="billing.invoice",
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
            },
        ),
        migrations.CreateModel(
            name="CreditNoteLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                ("description", models.CharField(max_length=200)),
                ("amount", models.DecimalField(decimal_places=4, max_digits=20)),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                (
                    "credit_note",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="billing.creditnote",
                    ),
                ),
                (
                    "invoice_line",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credited_by",
                        to="billing.invoiceline",
                    ),
                ),
            ],
            options={
                "ordering": ("position",),
            },
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "proposed")),
                fields=("invoice",),
                name="invoice_has_one_open_correction",
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.UniqueConstraint(
                condition=models.Q(("reference", ""), _negated=True),
                fields=("invoice", "reference"),
                name="correction_is_proposed_once_under_a_reference",
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("author__isnull", True),
                    ("decided_by__isnull", True),
                    ("status", "rejected"),
                    models.Q(("author", models.F("decided_by")), _negated=True),
                    _connector="OR",
                ),
                name="correction_is_approved_by_a_second_person",
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("decided_at__isnull", True),
                        ("decided_by__isnull", True),
                        ("status", "proposed"),
                    ),
                    models.Q(
                        ("decided_at__isnull", False), ("status__in", ["applied", "rejected"])
                    ),
                    _connector="OR",
                ),
                name="decided_correction_says_when",
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason", ""), _negated=True), name="correction_says_why"
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("net__lte", 0), ("settlement", "credit_note"), ("tax__lte", 0)),
                    models.Q(("settlement", "adjustment"), ("tax", 0)),
                    models.Q(("net", 0), ("settlement", "none"), ("tax", 0)),
                    _connector="OR",
                ),
                name="correction_is_settled_as_its_sign_says",
            ),
        ),
        migrations.AddConstraint(
            model_name="correction",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        [
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
                        ],
                    )
                ),
                name="correction_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="correctionline",
            constraint=models.UniqueConstraint(
                fields=("correction", "position"), name="lines_of_a_correction_have_an_order"
            ),
        ),
        migrations.AddConstraint(
            model_name="correctionline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("component", "credit"), ("grant__isnull", False)),
                    models.Q(
                        models.Q(("component", "credit"), _negated=True), ("grant__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="correction_of_credit_names_the_grant",
            ),
        ),
        migrations.AddConstraint(
            model_name="correctionline",
            constraint=models.CheckConstraint(
                condition=models.Q(("period_end__gt", models.F("period_start"))),
                name="correction_line_period_ends_after_start",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("net__gte", 0),
                    ("tax__gte", 0),
                    (
                        "total",
                        django.db.models.expressions.CombinedExpression(
                            models.F("net"), "+", models.F("tax")
                        ),
                    ),
                    ("total__gt", 0),
                ),
                name="credit_note_total_is_net_and_tax",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("as_credit__gte", 0),
                    ("off_due__gte", 0),
                    (
                        "total",
                        django.db.models.expressions.CombinedExpression(
                            models.F("off_due"), "+", models.F("as_credit")
                        ),
                    ),
                ),
                name="credit_note_is_settled_in_full",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("as_credit", 0), ("grant__isnull", True)),
                    models.Q(("as_credit__gt", 0), ("grant__isnull", False)),
                    _connector="OR",
                ),
                name="credit_note_names_the_credit_it_became",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason", ""), _negated=True), name="credit_note_says_why"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "currency__in",
                        [
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
                        ],
                    )
                ),
                name="credit_note_currency_is_one_of_iso_4217",
                violation_error_message="Use a currency of ISO 4217, as in USD.",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnoteline",
            constraint=models.UniqueConstraint(
                fields=("credit_note", "position"), name="lines_of_a_credit_note_have_an_order"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnoteline",
            constraint=models.CheckConstraint(
                condition=models.Q(("period_end__gt", models.F("period_start"))),
                name="credit_note_line_period_ends_after_start",
            ),
        ),
        migrations.RunSQL(FITS, FITS_NO_MORE),
        migrations.RunSQL(STAY, "DROP FUNCTION billing_correction_stays()"),
        *(
            migrations.RunSQL(
                STAYS.format(table=table) + stays.NOT_EMPTIED.format(table=table),
                f"DROP TRIGGER correction_stays ON {table};DROP TRIGGER is_not_emptied ON {table};",
            )
            for table in TABLES
        ),
        migrations.RunPython(take_rights, give_rights),
    ]
