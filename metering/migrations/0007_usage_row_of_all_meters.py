from importlib import import_module

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
    usage.cpu_allocated_ns,
    usage.memory_allocated_byte_ms,
    usage.gpu_ms,
    coalesce(storage.storage_byte_ms, 0)::bigint AS storage_byte_ms,
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
LEFT JOIN metering_storageusagerecord storage
    ON storage.life_id = usage.life_id AND storage.window_start = usage.window_start
"""
EARLIER = import_module("metering.migrations.0003_usage_row").VIEW
COLUMNS = ("cpu_allocated_ns", "memory_allocated_byte_ms", "gpu_ms", "storage_byte_ms")


class Migration(migrations.Migration):
    dependencies = [("metering", "0006_storage_usage")]

    operations = [
        migrations.RunSQL(
            ["DROP VIEW metering_usagerow", VIEW], ["DROP VIEW metering_usagerow", EARLIER]
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddField("UsageRow", name, models.BigIntegerField(default=0))
                for name in COLUMNS
            ]
        ),
    ]
