"""Answers of the engine as it was seen to give them, cgroup v1 live and v2 recorded."""

from __future__ import annotations

from typing import Any

import pytest

from metering.docker import parse_inspection, parse_statistics, parse_time
from metering.samples import State

ID = "4e191468dbe9a72098f9cb0ec90ac833100da72139df34c81b64988316d4edb6"
READ_MS = 1_795_366_450_664

V1: dict[str, Any] = {
    "read": "2026-11-22T16:54:10.664344728Z",
    "preread": "0001-01-01T00:00:00Z",
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 254, "minor": 0, "op": "Read", "value": 4096},
            {"major": 254, "minor": 0, "op": "Write", "value": 8192},
            {"major": 254, "minor": 0, "op": "Sync", "value": 8192},
            {"major": 254, "minor": 0, "op": "Async", "value": 4096},
            {"major": 254, "minor": 0, "op": "Total", "value": 12288},
            {"major": 254, "minor": 16, "op": "Read", "value": 1000},
        ]
    },
    "cpu_stats": {
        "cpu_usage": {"total_usage": 1_575_580_370, "percpu_usage": [1_572_385_202, 3_195_168]},
        "system_cpu_usage": 998_000_000_000,
        "online_cpus": 2,
    },
    "memory_stats": {
        "usage": 614_400,
        "max_usage": 3_563_520,
        "stats": {"total_inactive_file": 14_400, "inactive_file": 999, "cache": 5},
        "limit": 25_276_514_304,
    },
    "id": ID,
    "networks": {
        "eth0": {"rx_bytes": 1042, "tx_bytes": 7, "rx_packets": 11},
        "eth1": {"rx_bytes": 1, "tx_bytes": 2},
        "lo": {"rx_bytes": 99, "tx_bytes": 99},
    },
}

V2: dict[str, Any] = {
    "read": "2026-11-22T16:54:10.664344728Z",
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 259, "minor": 0, "op": "read", "value": 4096},
            {"major": 259, "minor": 0, "op": "write", "value": 8192},
        ]
    },
    "cpu_stats": {
        "cpu_usage": {"total_usage": 1_575_580_000, "usage_in_usermode": 1_550_000_000},
        "system_cpu_usage": 998_000_000_000,
        "online_cpus": 8,
    },
    "memory_stats": {"usage": 614_400, "stats": {"inactive_file": 400}, "limit": 67_108_864},
    "id": ID,
    "networks": {"eth0": {"rx_bytes": 1042, "tx_bytes": 7}},
}


def test_statistics_of_cgroup_v1() -> None:
    reading = parse_statistics(V1)
    assert reading is not None
    assert (reading.container_id, reading.read_ms) == (ID, READ_MS)
    assert reading.cpu_ns == 1_575_580_370
    assert reading.memory_bytes == 600_000
    assert reading.memory_limit_bytes == 25_276_514_304
    # Every device, and neither Sync, Async nor Total, which count the same bytes again.
    assert (reading.disk_read_bytes, reading.disk_write_bytes) == (5096, 8192)
    assert reading.interfaces == {"eth0": (1042, 7), "eth1": (1, 2)}


def test_recorded_statistics_of_cgroup_v2() -> None:
    reading = parse_statistics(V2)
    assert reading is not None
    assert (reading.cpu_ns, reading.memory_bytes) == (1_575_580_000, 614_000)
    assert (reading.disk_read_bytes, reading.disk_write_bytes) == (4096, 8192)


@pytest.mark.parametrize(
    "change",
    [
        {"read": "0001-01-01T00:00:00Z"},
        {"read": ""},
        {"cpu_stats": {"cpu_usage": {"total_usage": 0}}},
        {"cpu_stats": None},
    ],
)
def test_an_answer_of_zeros_is_no_data(change: dict[str, Any]) -> None:
    assert parse_statistics(V1 | change) is None


@pytest.mark.parametrize("devices", [None, []])
def test_a_disk_that_was_not_counted_is_unknown_and_not_zero(devices: list[Any] | None) -> None:
    reading = parse_statistics(V1 | {"blkio_stats": {"io_service_bytes_recursive": devices}})
    assert reading is not None
    assert reading.disk_read_bytes is None
    assert reading.disk_write_bytes is None


def test_memory_that_was_not_read_is_unknown_and_not_zero() -> None:
    reading = parse_statistics(V1 | {"memory_stats": {}})
    assert reading is not None
    assert reading.memory_bytes is None


def test_page_cache_is_only_taken_off_when_it_is_the_smaller() -> None:
    memory = {"usage": 100, "stats": {"total_inactive_file": 101}}
    reading = parse_statistics(V1 | {"memory_stats": memory})
    assert reading is not None
    assert reading.memory_bytes == 100


def test_a_container_without_a_network_has_no_interfaces() -> None:
    reading = parse_statistics({key: value for key, value in V1.items() if key != "networks"})
    assert reading is not None
    assert reading.interfaces == {}


INSPECTION: dict[str, Any] = {
    "Id": ID,
    "State": {
        "Running": True,
        "Paused": False,
        "StartedAt": "2026-11-22T16:54:07.608644354Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    },
    "Config": {"Labels": {"soulbox.sandbox_id": "a"}},
    "HostConfig": {"NanoCpus": 500_000_000, "Memory": 0, "NetworkMode": "default"},
}


def inspection(**changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value | changes.get(key, {}) if isinstance(value, dict) else value
        for key, value in INSPECTION.items()
    }


def test_an_inspection_tells_the_life_and_its_limits() -> None:
    container = parse_inspection(INSPECTION)
    assert container.started_ns == 1_795_366_447_608_644_354
    assert container.finished_ns is None
    assert container.state is State.RUNNING
    assert (container.cpu_limit_nano, container.memory_limit_bytes) == (500_000_000, None)
    assert container.network_unmetered == ""


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Paused": True}, State.PAUSED),
        ({"Running": False}, State.STOPPED),
    ],
)
def test_an_inspection_tells_the_state(state: dict[str, Any], expected: State) -> None:
    assert parse_inspection(inspection(State=state)).state is expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("host", "host"), ("none", "none"), (f"container:{ID}", "container"), ("bridge", "")],
)
def test_a_network_that_is_not_the_containers_own_is_named(mode: str, expected: str) -> None:
    container = parse_inspection(inspection(HostConfig={"NetworkMode": mode}))
    assert container.network_unmetered == expected


def test_a_quota_is_a_limit_too() -> None:
    config = {"NanoCpus": 0, "CpuQuota": 150_000, "CpuPeriod": 100_000}
    assert parse_inspection(inspection(HostConfig=config)).cpu_limit_nano == 1_500_000_000


def test_a_container_without_labels_has_none() -> None:
    assert parse_inspection(inspection(Config={"Labels": None})).labels == {}


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_an_engines_time_is_read_to_the_nanosecond(text: str, ns: int | None) -> None:
    assert parse_time(text) == ns
