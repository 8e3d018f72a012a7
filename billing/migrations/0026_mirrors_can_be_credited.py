from importlib import import_module

from django.db import migrations

# What a provider collected beyond the end of its plan is given back by a credit note of ours.
FITS = import_module("billing.migrations.0020_credit_notes").FITS
BEFORE = FITS.split("CREATE TRIGGER")[0].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
AFTER = BEFORE.replace("('usage', 'final')", "('usage', 'final', 'subscription')")


class Migration(migrations.Migration):
    dependencies = [("billing", "0025_paid_invoices_say_so")]

    operations = [migrations.RunSQL(AFTER, BEFORE)]
