from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Attempts go on meanwhile. One that was cut off is done again after DROP INDEX.
    atomic = False

    dependencies = [
        ("payments", "0009_reconciliations_go_on"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="paymentattempt",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["ended_at"],
                include=("status",),
                name="attempts_by_end",
            ),
        ),
    ]
