from importlib import import_module

from django.db import migrations

# What an invoice rests on is frozen with it, as its lines' parts are.
stays = import_module("billing.migrations.0008_final_invoices_stay")
TABLE = "billing_invoiceevidence"


class Migration(migrations.Migration):
    dependencies = [("billing", "0010_what_invoices_keep")]

    operations = [
        migrations.RunSQL(
            stays.FROZEN_ROWS.format(table=TABLE, **stays.PARTS),
            stays.NOT_FROZEN_ROWS.format(table=TABLE),
        ),
        migrations.RunSQL(
            stays.NOT_EMPTIED.format(table=TABLE), f"DROP TRIGGER is_not_emptied ON {TABLE}"
        ),
    ]
