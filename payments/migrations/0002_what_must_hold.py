from django.apps.registry import Apps
from django.db import connections, migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# A ledger that its own application can edit proves nothing to an auditor.
FACTS = "payments_payment, payments_allocation"

# Looked at as the transaction ends, when all of a payment's allocations are there.
ALLOCATED = """
CREATE FUNCTION payments_payment_is_allocated() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    payment bigint := CASE TG_TABLE_NAME WHEN 'payments_payment' THEN NEW.id
                      ELSE (to_jsonb(NEW) ->> 'payment_id')::bigint END;
    came numeric;
    paid numeric;
BEGIN
    SELECT amount INTO came FROM payments_payment WHERE id = payment;
    SELECT coalesce(sum(amount), 0) INTO paid FROM payments_allocation WHERE payment_id = payment;
    IF came <> paid THEN
        RAISE EXCEPTION 'Of payment %, %, % are allocated.', payment, came, paid
            USING ERRCODE = 'check_violation', CONSTRAINT = 'allocations_are_their_payment';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER allocations_are_their_payment AFTER INSERT ON payments_payment
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION payments_payment_is_allocated();
CREATE CONSTRAINT TRIGGER allocations_are_their_payment AFTER INSERT ON payments_allocation
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION payments_payment_is_allocated();
"""
NOT_ALLOCATED = """
DROP TRIGGER allocations_are_their_payment ON payments_payment;
DROP TRIGGER allocations_are_their_payment ON payments_allocation;
DROP FUNCTION payments_payment_is_allocated();
"""

# Whatever wants an invoice void: not while its money may come, and not when some has.
NOT_VOIDED = """
CREATE FUNCTION payments_invoice_is_not_collected() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM payments_collectionpart WHERE invoice_id = NEW.id AND is_live)
       OR EXISTS (SELECT 1 FROM payments_allocation WHERE invoice_id = NEW.id) THEN
        RAISE EXCEPTION 'Invoice % is being collected, or was paid in part.', NEW.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'void_invoice_is_not_collected';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER void_invoice_is_not_collected AFTER UPDATE OF status ON billing_invoice
    FOR EACH ROW WHEN (NEW.status = 'void' AND OLD.status <> 'void')
    EXECUTE FUNCTION payments_invoice_is_not_collected();
"""

# Days after the first failed payment. Staff change the rows.
SCHEDULE = (
    (1, "retry"),
    (3, "retry"),
    (7, "retry"),
    (14, "retry"),
    (14, "suspend"),
    (28, "write_off"),
)


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {FACTS} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT UPDATE, DELETE ON {FACTS} TO {role}")


def write_schedule(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    steps = apps.get_model("payments", "DunningStep").objects.using(schema_editor.connection.alias)
    for after_days, action in SCHEDULE:
        steps.create(after_days=after_days, action=action)


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_tables")]

    operations = [
        migrations.RunSQL(ALLOCATED, NOT_ALLOCATED),
        migrations.RunSQL(
            NOT_VOIDED,
            "DROP TRIGGER void_invoice_is_not_collected ON billing_invoice;"
            "DROP FUNCTION payments_invoice_is_not_collected();",
        ),
        migrations.RunPython(take_rights, give_rights),
        migrations.RunPython(write_schedule, migrations.RunPython.noop),
    ]
