from django.apps.registry import Apps
from django.db import connections, migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# Whatever the services do: no more is asked back of a payment than is left of it. A refund that
# was made at the provider has no reference, and is a fact: it is written down whatever was asked.
FITS = """
CREATE FUNCTION payments_refund_fits() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    came numeric;
    gone numeric;
BEGIN
    -- Two refunds of one payment wait for each other here, so that the second sees the first. A
    -- lock of the payment's row would need the right to update it, which nobody has.
    PERFORM pg_advisory_xact_lock(hashtextextended('refunds of payment', NEW.payment_id));
    SELECT amount INTO came FROM payments_payment WHERE id = NEW.payment_id;
    SELECT NEW.amount + coalesce(sum(amount), 0) INTO gone FROM payments_refund
      WHERE payment_id = NEW.payment_id AND id <> NEW.id
        AND status IN ('proposed', 'approved', 'pending', 'succeeded');
    SELECT gone + coalesce(sum(amount), 0) INTO gone FROM payments_dispute
      WHERE payment_id = NEW.payment_id AND status IN ('open', 'lost');
    IF gone > came THEN
        RAISE EXCEPTION 'Refunds and disputes of payment % would be more than it.', NEW.payment_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_are_no_more_than_the_payment';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refunds_are_no_more_than_the_payment BEFORE INSERT ON payments_refund
    FOR EACH ROW
    WHEN (NEW.reference <> '' AND NEW.status IN ('proposed', 'approved', 'pending', 'succeeded'))
    EXECUTE FUNCTION payments_refund_fits();
"""
FITS_NO_MORE = """
DROP TRIGGER refunds_are_no_more_than_the_payment ON payments_refund;
DROP FUNCTION payments_refund_fits();
"""
# What was asked back and disputed is told for ever, whatever became of it.
STAY = "payments_refund, payments_dispute"


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"REVOKE DELETE, TRUNCATE ON {STAY} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT DELETE ON {STAY} TO {role}")


class Migration(migrations.Migration):
    dependencies = [("payments", "0004_payment_methods_removed")]

    operations = [
        migrations.AddField(
            model_name="refund",
            name="bank_reference",
            field=models.CharField(blank=True, default="", max_length=100),
        ),
        migrations.RunSQL(FITS, FITS_NO_MORE),
        migrations.RunPython(take_rights, give_rights),
    ]
