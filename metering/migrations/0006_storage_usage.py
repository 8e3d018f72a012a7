import django.db.models.deletion
import psqlextra.backend.migrations.operations.add_default_partition
import psqlextra.backend.migrations.operations.create_partitioned_model
import psqlextra.manager.manager
import psqlextra.models.partitioned
import psqlextra.types
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0005_meters"),
    ]

    operations = [
        psqlextra.backend.migrations.operations.create_partitioned_model.PostgresCreatePartitionedModel(
            name="StorageUsageRecord",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "life_id",
                        "window_start",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("window_start", models.DateTimeField()),
                ("storage_byte_ms", models.BigIntegerField()),
                ("existing_ms", models.BigIntegerField()),
                ("measured_ms", models.BigIntegerField()),
                ("sample_count", models.BigIntegerField()),
                (
                    "life",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="storage_records",
                        to="metering.life",
                    ),
                ),
            ],
            partitioning_options={
                "method": psqlextra.types.PostgresPartitioningMethod["RANGE"],
                "key": ["window_start"],
            },
            bases=(psqlextra.models.partitioned.PostgresPartitionedModel,),
            managers=[
                ("objects", psqlextra.manager.manager.PostgresManager()),
            ],
        ),
        psqlextra.backend.migrations.operations.add_default_partition.PostgresAddDefaultPartition(
            model_name="StorageUsageRecord",
            name="default",
        ),
        migrations.AddConstraint(
            model_name="storageusagerecord",
            constraint=models.CheckConstraint(
                condition=models.Q(("storage_byte_ms__gte", 0)),
                name="storage_usage_is_never_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="storageusagerecord",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("measured_ms__gte", 0),
                    ("measured_ms__lte", models.F("existing_ms")),
                    ("existing_ms__lte", 900000),
                ),
                name="a_window_holds_its_existing_time_and_that_what_was_measured",
            ),
        ),
    ]
