from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import OuterRef, Subquery


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection.alias
    accounts = apps.get_model("billing", "Account").objects.using(database)
    zones = accounts.filter(pk=OuterRef("account")).values("time_zone")
    subscriptions = apps.get_model("billing", "Subscription").objects.using(database)
    subscriptions.update(time_zone=Subquery(zones))


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_final_invoices_stay")]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="time_zone",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
