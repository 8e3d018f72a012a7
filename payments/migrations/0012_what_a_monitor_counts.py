from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Events and collections go on meanwhile. One that was cut off is done again after DROP INDEX.
    atomic = False

    dependencies = [
        ("payments", "0011_restorations"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="collection",
            index=models.Index(
                condition=models.Q(("status__in", ["preparing", "open", "refused"])),
                fields=["status"],
                name="collections_that_are_not_over",
            ),
        ),
        AddIndexConcurrently(
            model_name="webhookevent",
            index=models.Index(
                condition=models.Q(("status__in", ["received", "failed"])),
                fields=["status"],
                name="events_that_wait_or_failed",
            ),
        ),
    ]
