from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0015_invoice_files")]

    operations = [
        migrations.CreateModel(
            name="OperatorKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("prefix", models.CharField(max_length=20)),
                ("key_hash", models.CharField(editable=False, max_length=64)),
                ("created_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ("-created_at",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("key_hash",), name="operator_key_hash_is_unique"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("revoked_at__isnull", True)),
                        fields=("name",),
                        name="operator_keys_in_use_differ_in_name",
                    ),
                ],
            },
        ),
    ]
