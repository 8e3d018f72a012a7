from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_rights_of_roles")]

    operations = [
        migrations.AddIndex(
            model_name="invoicetransition",
            index=models.Index(
                condition=models.Q(("to_status__in", ["pending", "payment_failed"])),
                fields=["at"],
                name="transitions_that_are_told_of",
            ),
        ),
    ]
