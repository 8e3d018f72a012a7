from django.db import migrations

# A row of a draft that is moved to a final invoice changes that one: not only where the rows of an
# update were counts, but where they go.
MOVED = """
CREATE TRIGGER final_invoice_stays_on_move AFTER UPDATE ON {table}
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {table}_of_a_final_invoice_stays();
"""
TABLES = (
    "billing_invoiceline",
    "billing_invoicediscount",
    "billing_invoicelinepart",
    "billing_invoiceevidence",
    "billing_billedlateusage",
    "billing_invoiceadjustment",
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0021_top_up_invoices")]

    operations = [
        migrations.RunSQL(
            MOVED.format(table=table), f"DROP TRIGGER final_invoice_stays_on_move ON {table}"
        )
        for table in TABLES
    ]
