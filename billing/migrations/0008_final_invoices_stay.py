from django.apps.registry import Apps
from django.db import connections, migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# Only where an invoice stands may change once it has its number.
FROZEN = """
CREATE FUNCTION billing_final_invoice_stays() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.number IS NULL THEN
        RETURN COALESCE(NEW, OLD);
    END IF;
    IF TG_OP = 'DELETE'
       OR to_jsonb(NEW) - 'status' - 'paid_at' <> to_jsonb(OLD) - 'status' - 'paid_at' THEN
        RAISE EXCEPTION 'Invoice % is final. Void it and issue another, or write a credit note.',
            OLD.number USING ERRCODE = 'check_violation', CONSTRAINT = 'final_invoice_stays';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER final_invoice_stays BEFORE UPDATE OR DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_final_invoice_stays();

CREATE FUNCTION billing_is_not_emptied() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% has final invoices, or what they rest on. It cannot be emptied.',
        TG_TABLE_NAME USING ERRCODE = 'check_violation', CONSTRAINT = 'final_invoice_stays';
END $$;
"""

# Looked at once a statement, not once a row: a billing run writes thousands of lines in one.
FROZEN_ROWS = """
CREATE FUNCTION {table}_of_a_final_invoice_stays() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    final text;
BEGIN
    SELECT invoice.number INTO final FROM changed {join}
      JOIN billing_invoice invoice ON invoice.id = {invoice}
     WHERE invoice.number IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'Invoice % is final. Void it and issue another, or write a credit note.',
            final USING ERRCODE = 'check_violation', CONSTRAINT = 'final_invoice_stays';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER final_invoice_stays_on_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_of_a_final_invoice_stays();
CREATE TRIGGER final_invoice_stays_on_update AFTER UPDATE ON {table}
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_of_a_final_invoice_stays();
CREATE TRIGGER final_invoice_stays_on_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_of_a_final_invoice_stays();
"""
NOT_FROZEN_ROWS = """
DROP TRIGGER final_invoice_stays_on_insert ON {table};
DROP TRIGGER final_invoice_stays_on_update ON {table};
DROP TRIGGER final_invoice_stays_on_delete ON {table};
DROP FUNCTION {table}_of_a_final_invoice_stays();
"""
NOT_EMPTIED = """
CREATE TRIGGER is_not_emptied BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION billing_is_not_emptied();
"""
LINES = {"join": "", "invoice": "changed.invoice_id"}
PARTS = {
    "join": "JOIN billing_invoiceline line ON line.id = changed.line_id",
    "invoice": "line.invoice_id",
}
ROWS = {
    "billing_invoiceline": LINES,
    "billing_invoicediscount": LINES,
    "billing_invoicelinepart": PARTS,
}
KEPT = (*ROWS, "billing_invoice", "billing_invoicetransition", "billing_creditentry")
FACTS = "billing_invoicetransition"


def take_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # What was done to an invoice is a fact, as a line of the credit ledger is.
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {FACTS} FROM {role}")


def give_rights(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(f"GRANT UPDATE, DELETE ON {FACTS} TO {role}")


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_invoice_states")]

    operations = [
        migrations.RunSQL(
            FROZEN,
            "DROP TRIGGER final_invoice_stays ON billing_invoice;"
            "DROP FUNCTION billing_final_invoice_stays();"
            "DROP FUNCTION billing_is_not_emptied();",
        ),
        *(
            migrations.RunSQL(
                FROZEN_ROWS.format(table=table, **names), NOT_FROZEN_ROWS.format(table=table)
            )
            for table, names in ROWS.items()
        ),
        *(
            migrations.RunSQL(
                NOT_EMPTIED.format(table=table), f"DROP TRIGGER is_not_emptied ON {table}"
            )
            for table in KEPT
        ),
        migrations.RunPython(take_rights, give_rights),
    ]
