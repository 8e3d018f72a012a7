from django.db import migrations, models

VIEW = """
CREATE VIEW metering_usagerow AS
SELECT
    usage.life_id || '-' || extract(epoch FROM usage.window_start)::bigint AS id,
    usage.life_id,
    life.sandbox_id,
    usage.window_start,
    usage.cpu_ns,
    usage.memory_byte_ms,
    coalesce(network.tx_bytes, 0)::bigint AS network_tx_bytes,
    coalesce(network.rx_bytes, 0)::bigint AS network_rx_bytes,
    usage.disk_read_bytes,
    usage.disk_write_bytes,
    usage.opening_cpu_ns,
    usage.closing_cpu_ns,
    usage.running_ms,
    usage.measured_ms,
    usage.sample_count
FROM metering_usagerecord usage
JOIN metering_life life ON life.id = usage.life_id
LEFT JOIN LATERAL (
    SELECT sum(record.tx_bytes) AS tx_bytes, sum(record.rx_bytes) AS rx_bytes
    FROM metering_interfacereading interface
    JOIN metering_networkusagerecord record ON record.interface_id = interface.interface
    WHERE interface.life_id = usage.life_id AND record.window_start = usage.window_start
) network ON true
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_usage")]

    operations = [
        migrations.RunSQL(VIEW, "DROP VIEW metering_usagerow"),
        migrations.CreateModel(
            name="UsageRow",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("window_start", models.DateTimeField()),
                ("cpu_ns", models.BigIntegerField()),
                ("memory_byte_ms", models.BigIntegerField()),
                ("network_tx_bytes", models.BigIntegerField()),
                ("network_rx_bytes", models.BigIntegerField()),
                ("disk_read_bytes", models.BigIntegerField()),
                ("disk_write_bytes", models.BigIntegerField()),
                ("opening_cpu_ns", models.BigIntegerField()),
                ("closing_cpu_ns", models.BigIntegerField()),
                ("running_ms", models.BigIntegerField()),
                ("measured_ms", models.BigIntegerField()),
                ("sample_count", models.BigIntegerField()),
            ],
            options={"verbose_name": "usage record", "managed": False},
        ),
    ]
