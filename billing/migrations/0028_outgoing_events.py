import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.apps.registry import Apps
from django.conf import settings
from django.db import connections, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

TABLE = "billing_event"
# What happened before is old news.
BEGIN = """
INSERT INTO billing_mailcursor (source, looked_until) VALUES ('invoice events', now());
"""
END = "DELETE FROM billing_mailcursor WHERE source = 'invoice events';"
STAYS = """
CREATE FUNCTION billing_event_stays() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Event % is a fact and stays as it is.',
        OLD.id USING ERRCODE = 'check_violation', CONSTRAINT = 'event_stays';
END
$$;
CREATE TRIGGER event_stays BEFORE UPDATE ON billing_event
    FOR EACH ROW EXECUTE FUNCTION billing_event_stays();
"""
STAYS_NO_MORE = """
DROP TRIGGER event_stays ON billing_event;
DROP FUNCTION billing_event_stays();
"""


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"REVOKE UPDATE, TRUNCATE ON {TABLE} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT UPDATE ON {TABLE} TO {role}")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0027_mail_of_payments"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("try_at", models.DateTimeField()),
                ("tried_at", models.DateTimeField(blank=True, null=True)),
                ("delivered_at", models.DateTimeField(blank=True, null=True)),
                ("given_up_at", models.DateTimeField(blank=True, null=True)),
                ("response_status", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("response_excerpt", models.CharField(blank=True, default="", max_length=1000)),
                ("last_error", models.CharField(blank=True, default="", max_length=300)),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "type",
                    models.CharField(
                        choices=[
                            ("invoice.finalized", "invoice.finalized"),
                            ("invoice.paid", "invoice.paid"),
                            ("invoice.payment_failed", "invoice.payment_failed"),
                            ("subscription.changed", "subscription.changed"),
                            ("usage.threshold", "usage.threshold"),
                            ("budget.reached", "budget.reached"),
                            ("budget.capped", "budget.capped"),
                            ("budget.cap_lifted", "budget.cap_lifted"),
                            ("ping", "ping"),
                        ],
                        max_length=32,
                    ),
                ),
                ("subject_key", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField()),
                ("data", models.JSONField()),
            ],
            options={
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("url", models.CharField(max_length=2048)),
                ("description", models.CharField(blank=True, default="", max_length=200)),
                (
                    "event_types",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(
                            choices=[
                                ("invoice.finalized", "invoice.finalized"),
                                ("invoice.paid", "invoice.paid"),
                                ("invoice.payment_failed", "invoice.payment_failed"),
                                ("subscription.changed", "subscription.changed"),
                                ("usage.threshold", "usage.threshold"),
                                ("budget.reached", "budget.reached"),
                                ("budget.capped", "budget.capped"),
                                ("budget.cap_lifted", "budget.cap_lifted"),
                                ("ping", "ping"),
                            ],
                            max_length=32,
                        ),
                        blank=True,
                        default=list,
                        size=None,
                    ),
                ),
                ("secret_seed", models.CharField(editable=False, max_length=64)),
                ("secret_check", models.CharField(editable=False, max_length=64)),
                (
                    "old_secret_seed",
                    models.CharField(blank=True, default="", editable=False, max_length=64),
                ),
                (
                    "old_secret_check",
                    models.CharField(blank=True, default="", editable=False, max_length=64),
                ),
                ("old_secret_until", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
                ("failing_since", models.DateTimeField(blank=True, null=True)),
                ("last_took_ms", models.PositiveIntegerField(default=0)),
                ("claimed_until", models.DateTimeField(blank=True, null=True)),
                ("disabled_at", models.DateTimeField(blank=True, null=True)),
                ("disabled_reason", models.CharField(blank=True, default="", max_length=200)),
                ("removed_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ("-created_at", "-id"),
            },
        ),
        migrations.AddIndex(
            model_name="invoicetransition",
            index=models.Index(
                condition=models.Q(("to_status__in", ["pending", "paid", "payment_failed"])),
                fields=["at"],
                name="transitions_that_are_events",
            ),
        ),
        migrations.AddField(
            model_name="event",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="events",
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="event",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="deliveries",
                to="billing.event",
            ),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="account",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="webhook_endpoints",
                to="billing.account",
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="endpoint",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="deliveries",
                to="billing.webhookendpoint",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                fields=["account", "-created_at", "-id"], name="events_of_an_account"
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["created_at"], name="events_by_age"),
        ),
        migrations.AddConstraint(
            model_name="event",
            constraint=models.UniqueConstraint(
                fields=("type", "subject_key"), name="event_is_written_once_about_a_subject"
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookendpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("disabled_at__isnull", True), ("disabled_reason", "")),
                    models.Q(
                        ("disabled_at__isnull", False),
                        models.Q(("disabled_reason", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="disabled_endpoint_says_why",
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookendpoint",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("old_secret_seed", ""), ("old_secret_until__isnull", True)),
                    models.Q(
                        models.Q(("old_secret_seed", ""), _negated=True),
                        ("old_secret_until__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="old_secret_says_until_when",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("delivered_at__isnull", True), ("given_up_at__isnull", True)),
                fields=["endpoint", "try_at"],
                name="deliveries_by_turn",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                fields=["endpoint", "-created_at", "-id"], name="deliveries_of_endpoint"
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                fields=("event", "endpoint"), name="event_has_one_delivery_to_an_endpoint"
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("delivered_at__isnull", True), ("given_up_at__isnull", True), _connector="OR"
                ),
                name="delivered_event_is_not_given_up",
            ),
        ),
        migrations.RunSQL(STAYS, STAYS_NO_MORE),
        migrations.RunPython(take_rights, give_rights),
        migrations.RunSQL(BEGIN, END),
    ]
