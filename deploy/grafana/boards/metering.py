"""Whether every sandbox is measured, and what was measured is where it belongs."""

from __future__ import annotations

from boards.panels import Board, Choice, Panel, Query, Row, told

_HOST = '{host=~"$host"}'
_RUNNING = f"soulbox_host_running_sandboxes{_HOST}"

BOARD = Board(
    name="metering",
    title="SoulBox: metering",
    description="Whether every host is read, its samples are folded, and how much was measured.",
    choices=[Choice("host", "Host", "soulbox_host_seen_seconds", "host")],
    items=[
        Panel(
            "Coverage",
            "Share of the time that sandboxes ran today and yesterday in which they were measured. "
            "What was not is not charged. It is as old as the desk's sums: up to two hours.",
            "percentunit",
            (Query(told("soulbox_coverage_ratio"), "measured"),),
            kind="stat",
            width=8,
            limits=(0.99, 0.999),
            is_low_bad=True,
            alert="CoverageLow",
            most=1,
        ),
        Panel(
            "Running sandboxes",
            "Sandboxes that run on the chosen hosts, as of each host's last pass.",
            "short",
            (Query(f"sum({told(_RUNNING, 'host')})", "running"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Longest silence of a host",
            "Time since the host that is silent for longest was read.",
            "s",
            (Query(f"max(soulbox_host_seen_seconds{_HOST})", "silent for"),),
            kind="stat",
            width=4,
            limits=(30, 60),
            alert="MeteringStopped",
        ),
        Panel(
            "Rows without a month",
            "Rows of usage that lie in the default partition, as their month has no table.",
            "short",
            (Query(f"sum({told('soulbox_default_partition_rows', 'table')})", "rows"),),
            kind="stat",
            width=4,
            limits=(1,),
            alert="DefaultPartition",
        ),
        Panel(
            "Sandboxes that nobody reads",
            "Sandboxes that run and had no reading for six minutes, though their host is read.",
            "short",
            (Query(told("soulbox_unsampled_sandboxes"), "sandboxes"),),
            kind="stat",
            width=4,
            limits=(1,),
            alert="SandboxesUnsampled",
        ),
        Row("Hosts"),
        Panel(
            "Time since a host was read",
            "A host is read each METERING_INTERVAL seconds. Nothing on it is measured meanwhile.",
            "s",
            (Query(told(f"soulbox_host_seen_seconds{_HOST}", "host"), "{{host}}"),),
            limits=(30, 60),
            alert="MeteringStopped",
        ),
        Panel(
            "Running sandboxes by host",
            "How many sandboxes run on each host.",
            "short",
            (Query(told(_RUNNING, "host"), "{{host}}"),),
            is_stacked=True,
        ),
        Row("From samples to usage"),
        Panel(
            "Lag of the streams",
            "Up to when samples are folded into usage, as an age. Folded is each 15 s.",
            "s",
            (Query(told(f"soulbox_stream_lag_seconds{_HOST}", "host"), "{{host}}"),),
            limits=(60, 300),
            alert="StreamLag",
        ),
        Panel(
            "Batches in the streams",
            "Of each host in Redis, those that are folded and kept for a backfill, too.",
            "short",
            (Query(told(f"soulbox_stream_entries{_HOST}", "host"), "{{host}}"),),
            alert="StreamLag",
        ),
        Panel(
            "Batches lost",
            "Batches of samples that each host lost within the hour. Gauges of that time are gone.",
            "short",
            (Query(told(f"increase(soulbox_host_lost_batches{_HOST}[1h])", "host"), "{{host}}"),),
            limits=(1,),
            alert="BatchesLost",
        ),
        Panel(
            "Coverage over time",
            "Share of the running time of today and yesterday that was measured.",
            "percentunit",
            (Query(told("soulbox_coverage_ratio"), "measured"),),
            limits=(0.99, 0.999),
            is_low_bad=True,
            alert="CoverageLow",
            least=None,
            most=1,
        ),
        Panel(
            "Age of the summaries of days",
            "Since when the days of what runs are not summarised; they are each hour. Costs and "
            "coverage are as old.",
            "s",
            (Query(told("soulbox_summaries_age_seconds"), "age"),),
            width=24,
            limits=(5400, 10800),
            alert="SummariesLate",
        ),
    ],
)
