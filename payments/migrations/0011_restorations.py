from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("payments", "0010_attempts_by_end")]

    operations = [
        migrations.CreateModel(
            name="Restoration",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("restored_at", models.DateTimeField()),
            ],
            options={"ordering": ("-restored_at",), "default_permissions": ()},
        ),
    ]
