"""Answers of the engine as it was seen to give them, cgroup v1 live and v2 recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metering.docker.answers import (
    parse_event,
    parse_inspection,
    parse_list,
    parse_offer,
    parse_pid,
    parse_statistics,
    parse_storage,
    parse_time,
    parse_versions,
)
from metering.samples import State
from metering.source import (
    UNKNOWN_GPUS,
    Action,
    Container,
    ContainerEvent,
    Listed,
    Offer,
    Reading,
    SourceError,
    StorageReading,
)

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


def body(answer: object) -> bytes:
    return json.dumps(answer).encode()


def reading_of(answer: dict[str, Any]) -> Reading:
    reading = parse_statistics(body(answer))
    assert reading is not None
    return reading


def test_statistics_of_cgroup_v1() -> None:
    reading = reading_of(V1)
    assert (reading.container_id, reading.read_ms) == (ID, READ_MS)
    assert reading.cpu_ns == 1_575_580_370
    assert reading.memory_bytes == 600_000
    # Every device, and neither Sync, Async nor Total, which count the same bytes again.
    assert (reading.disk_read_bytes, reading.disk_write_bytes) == (5096, 8192)
    assert reading.interfaces == {"eth0": (1042, 7), "eth1": (1, 2)}


def test_statistics_that_another_client_decoded_are_the_same() -> None:
    assert parse_statistics(V1) == reading_of(V1)


def test_recorded_statistics_of_cgroup_v2() -> None:
    reading = reading_of(V2)
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
    assert parse_statistics(body(V1 | change)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": "../../info"},
        {"read": 5},
        {"read": "yesterday"},
        {"read": "2026-13-41T99:99:99Z"},
        {"read": "9999-11-22T16:54:10Z"},
        {"read": "2026-11-22T16:54:10٣Z"},
        {"cpu_stats": []},
        {"cpu_stats": {"cpu_usage": {"total_usage": -1}, "system_cpu_usage": 1}},
        {"cpu_stats": {"cpu_usage": {"total_usage": 2**64}, "system_cpu_usage": 1}},
        {"cpu_stats": {"cpu_usage": {"total_usage": 1.5}, "system_cpu_usage": 1}},
        {"cpu_stats": {"cpu_usage": {"total_usage": True}, "system_cpu_usage": 1}},
        {"memory_stats": {"usage": "614400"}},
        {"networks": {"eth0": {"rx_bytes": 1}}},
        {"networks": {"eth0": None}},
        {"networks": [1]},
        {"networks": {"\ud800": {"rx_bytes": 1, "tx_bytes": 1}}},
        {"blkio_stats": {"io_service_bytes_recursive": [{"op": None, "value": 1}]}},
    ],
)
def test_a_malformed_answer_is_no_data(change: dict[str, Any]) -> None:
    assert parse_statistics(body(V1 | change)) is None


@pytest.mark.parametrize(
    "answer", [b"", b"null", b"[]", b"{", b"\xff", b'{"id":"\xff"}', b'{"x":' + b"[" * 100_000]
)
def test_what_is_no_answer_at_all_is_no_data(answer: bytes) -> None:
    assert parse_statistics(answer) is None
    assert parse_inspection(answer) is None
    assert parse_pid(answer) is None
    assert parse_event(answer) is None


@pytest.mark.parametrize("devices", [None, []])
def test_a_disk_that_was_not_counted_is_unknown_and_not_zero(devices: list[Any] | None) -> None:
    reading = reading_of(V1 | {"blkio_stats": {"io_service_bytes_recursive": devices}})
    assert reading.disk_read_bytes is None
    assert reading.disk_write_bytes is None


def test_memory_that_was_not_read_is_unknown_and_not_zero() -> None:
    assert reading_of(V1 | {"memory_stats": {}}).memory_bytes is None


def test_a_cpu_counter_that_was_not_read_is_unknown_and_not_zero() -> None:
    cpu = {"cpu_usage": {"total_usage": None}, "system_cpu_usage": 1}
    assert reading_of(V1 | {"cpu_stats": cpu}).cpu_ns is None


def test_page_cache_is_only_taken_off_when_it_is_the_smaller() -> None:
    memory = {"usage": 100, "stats": {"total_inactive_file": 101}}
    assert reading_of(V1 | {"memory_stats": memory}).memory_bytes == 100


def test_a_container_without_a_network_has_no_interfaces() -> None:
    without = {key: value for key, value in V1.items() if key != "networks"}
    assert reading_of(without).interfaces == {}


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


def container_of(answer: dict[str, Any]) -> Container:
    container = parse_inspection(body(answer))
    assert container is not None
    return container


def test_an_inspection_tells_the_life_and_its_limits() -> None:
    container = container_of(INSPECTION)
    assert container.started_ns == 1_795_366_447_608_644_354
    assert container.finished_ns is None
    assert container.state is State.RUNNING
    assert container.cpu_limit_micro == 500_000
    assert container.memory_limit_bytes is None
    assert container.gpu_count == 0
    assert container.network_unmetered == ""


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Paused": True}, State.PAUSED),
        ({"Running": False}, State.STOPPED),
        ({"Running": True, "Restarting": True}, State.STOPPED),
    ],
)
def test_an_inspection_tells_the_state(state: dict[str, Any], expected: State) -> None:
    assert container_of(inspection(State=state)).state is expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("host", "host"), ("none", "none"), (f"container:{ID}", "container"), ("bridge", "")],
)
def test_a_network_that_is_not_the_containers_own_is_named(mode: str, expected: str) -> None:
    container = container_of(inspection(HostConfig={"NetworkMode": mode}))
    assert container.network_unmetered == expected


@pytest.mark.parametrize(
    ("config", "micro"),
    [
        ({"NanoCpus": 0, "CpuQuota": 150_000, "CpuPeriod": 100_000}, 1_500_000),
        ({"NanoCpus": 0, "CpuQuota": 150_000, "CpuPeriod": 0}, 1_500_000),
        ({"NanoCpus": 0, "CpuQuota": 1000, "CpuPeriod": 30_000}, 33_333),
        ({"NanoCpus": 1_234_567_899}, 1_234_567),
        ({"NanoCpus": 0, "CpuQuota": -1}, None),
        ({"NanoCpus": None}, None),
    ],
)
def test_a_limit_of_cpus_is_in_whole_millionths(config: dict[str, Any], micro: int | None) -> None:
    assert container_of(inspection(HostConfig=config)).cpu_limit_micro == micro


def test_a_quota_is_a_limit_in_billionths_too() -> None:
    config = {"NanoCpus": 0, "CpuQuota": 150_000, "CpuPeriod": 100_000}
    assert container_of(inspection(HostConfig=config)).cpu_limit_micro == 1_500_000


# As `docker inspect` showed them on hosts with gpus.
ALL_GPUS = {
    "Driver": "",
    "Count": -1,
    "DeviceIDs": None,
    "Capabilities": [["gpu"]],
    "Options": {},
}


@pytest.mark.parametrize(
    ("requests", "count"),
    [
        (None, 0),
        ([], 0),
        ([ALL_GPUS], UNKNOWN_GPUS),
        ([ALL_GPUS | {"Driver": "nvidia"}], UNKNOWN_GPUS),
        ([ALL_GPUS | {"Count": 2}], 2),
        ([ALL_GPUS | {"Count": 0, "DeviceIDs": ["0", "2"]}], 2),
        ([ALL_GPUS | {"Count": 0, "DeviceIDs": ["all"]}], UNKNOWN_GPUS),
        ([ALL_GPUS | {"Count": 1}, ALL_GPUS | {"Count": 2}], 3),
        ([ALL_GPUS | {"Capabilities": [["compute"], ["nvidia", "gpu"]]}], UNKNOWN_GPUS),
        ([ALL_GPUS | {"Capabilities": [["tpu"]]}], 0),
        ([ALL_GPUS | {"Capabilities": None}], 0),
        ([ALL_GPUS | {"Driver": "other"}], 0),
        ([{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=0", "x.com/net=1"]}], 1),
        ([{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=all"]}], UNKNOWN_GPUS),
    ],
)
def test_recorded_requests_for_devices_tell_the_gpus_held(requests: Any, count: int) -> None:
    config = {"DeviceRequests": requests}
    assert container_of(inspection(HostConfig=config)).gpu_count == count


def test_a_container_without_labels_has_none() -> None:
    assert container_of(inspection(Config={"Labels": None})).labels == {}


def test_of_labels_only_our_own_are_kept() -> None:
    labels = {"soulbox.sandbox_id": "a\0b", "password": "x"}
    found = container_of(inspection(Config={"Labels": labels})).labels
    assert found == {"soulbox.sandbox_id": "a\0b"}


def test_nothing_of_the_environment_is_kept() -> None:
    answer = inspection(Config={"Env": ["PASSWORD=hunter2"], "Cmd": ["hunter2"]})
    assert "hunter2" not in repr(container_of(answer))


@pytest.mark.parametrize(
    "change",
    [
        {"State": {"Running": "yes"}},
        {"State": {"StartedAt": None}},
        {"State": {"StartedAt": "soon"}},
        {"Config": {"Labels": {"soulbox.sandbox_id": 5}}},
        {"Config": {"Labels": ["soulbox.sandbox_id"]}},
        {"HostConfig": {"Memory": "64m"}},
    ],
)
def test_a_malformed_inspection_is_no_container(change: dict[str, Any]) -> None:
    assert parse_inspection(body(inspection(**change))) is None


def test_a_running_containers_first_process_is_told() -> None:
    assert parse_pid(body(inspection(State={"Pid": 77}))) == (ID, 77)
    assert parse_pid(body(inspection(State={"Pid": 0}))) is None
    assert parse_pid(body(inspection(State={"Pid": 77, "Running": False}))) is None


def test_a_list_leaves_out_only_the_entries_that_cannot_be_read() -> None:
    answer = [{"Id": ID, "State": "paused"}, {"Id": "x"}, None, {"Id": "a" * 64}]
    assert parse_list(body(answer)) == [Listed(ID, State.PAUSED), Listed("a" * 64, State.STOPPED)]
    with pytest.raises(SourceError, match="cannot be read"):
        parse_list(b'{"message": 5}')


INFO: dict[str, Any] = {"ID": "NA3J:BAVY", "NCPU": 2, "MemTotal": 25_276_514_304}


def test_an_offer_is_what_the_host_has() -> None:
    assert parse_offer(body(INFO)) == Offer(2_000_000, 25_276_514_304, None)
    with pytest.raises(SourceError, match="cannot be read"):
        parse_offer(body(INFO | {"NCPU": None}))


@pytest.mark.parametrize(
    ("names", "count"),
    [
        ([], 0),
        (["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"], 2),
        (["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-c5ae6bf1", "nvidia.com/gpu=all"], 1),
        (["a.b/gpu=GPU-c5ae6bf1", "nvidia.com/gpu=GPU-c5ae6bf1", "vendor.com/net=eth5"], 1),
    ],
)
def test_recorded_devices_tell_the_gpus_of_a_host(names: list[str], count: int) -> None:
    devices = [{"Source": "cdi", "ID": name} for name in names]
    assert parse_offer(body(INFO | {"DiscoveredDevices": devices})).gpu_count == count


def test_versions_are_numbers_and_not_text() -> None:
    answer = {"ApiVersion": "1.41", "MinAPIVersion": "1.9"}
    assert parse_versions(body(answer)) == ((1, 9), (1, 41))
    with pytest.raises(SourceError, match="version"):
        parse_versions(body(answer | {"ApiVersion": "latest"}))


EVENT: dict[str, Any] = {
    "status": "start",
    "id": ID,
    "Type": "container",
    "Action": "start",
    "Actor": {"ID": ID, "Attributes": {"image": "busybox", "soulbox.sandbox_id": "a"}},
    "time": 1_795_378_203,
    "timeNano": 1_795_378_203_342_213_401,
}


def test_an_event_carries_our_labels_of_its_time() -> None:
    expected = ContainerEvent(
        ID, Action.START, 1_795_378_203_342_213_401, {"soulbox.sandbox_id": "a"}
    )
    assert parse_event(body(EVENT)) == expected
    # The engine of 2025 left out what stands in the actor too.
    newer = {key: value for key, value in EVENT.items() if key not in {"status", "id"}}
    assert parse_event(body(newer)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"Action": "exec_start: sh"},
        {"Actor": {"ID": 5}},
        {"timeNano": None},
        # A network has an id of the same form.
        {"Type": "network"},
        {"Actor": {"ID": ID, "Attributes": {"image": "busybox"}}},
        {"Actor": {"ID": ID, "Attributes": None}},
    ],
)
def test_an_event_that_is_not_looked_for_is_none(change: dict[str, Any]) -> None:
    assert parse_event(body(EVENT | change)) is None


def entry(number: int, *, created: int = 0, volumes: list[str] | None = None, **more: Any) -> Any:
    mounts = [{"Type": "volume", "Name": name} for name in volumes or []]
    return {"Id": f"{number:064x}", "Created": created, "Mounts": mounts, **more}


def storage(entries: list[Any], **sizes: Any) -> list[StorageReading]:
    volumes = [{"Name": name, "UsageData": {"Size": size}} for name, size in sizes.items()]
    return parse_storage(body(entries), body({"Volumes": volumes}), read_ms=7)


def taken(readings: list[StorageReading]) -> dict[int, tuple[int, int]]:
    return {int(r.container_id, 16): (r.layer_bytes, r.volume_bytes) for r in readings}


def test_a_layer_that_is_left_out_of_a_list_with_sizes_is_empty() -> None:
    assert storage([entry(1)]) == [StorageReading(f"{1:064x}", 7, 0, 0)]
    assert taken(storage([entry(1, SizeRw=5)])) == {1: (5, 0)}


@pytest.mark.parametrize("size", [-1, None, "5"])
def test_a_layer_that_the_engine_could_not_measure_is_no_data(size: Any) -> None:
    assert taken(storage([entry(1, SizeRw=size), entry(2)])) == {2: (0, 0)}


def test_a_volume_counts_once_with_the_container_created_first() -> None:
    entries = [
        entry(3, created=20, volumes=["shared", "own"]),
        entry(2, created=10, volumes=["shared", "shared"]),
        entry(1, created=10, volumes=["other"]),
        entry(4, created=10, volumes=["shared", "other"]),
    ]
    assert taken(storage(entries, shared=100, own=10, other=1)) == {
        1: (0, 1),
        2: (0, 100),
        3: (0, 10),
        4: (0, 0),
    }


def test_a_volume_of_unknown_size_is_not_counted() -> None:
    assert taken(storage([entry(1, volumes=["a", "b", "c"])], a=-1, b=5)) == {1: (0, 5)}
    answer = {"Volumes": [{"Name": "a", "UsageData": None}, None]}
    readings = parse_storage(body([entry(1, volumes=["a"])]), body(answer), read_ms=7)
    assert taken(readings) == {1: (0, 0)}


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("1970-01-01T02:00:01.000000001+02:00", 1_000_000_001),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_an_engines_time_is_read_to_the_nanosecond(text: str, ns: int | None) -> None:
    assert parse_time(text) == ns
