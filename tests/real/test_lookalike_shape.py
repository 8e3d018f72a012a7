"""The look-alike's answers have the keys and the types of the real engine's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.lookalike import Load, LookAlike
from tests.lookalike.server import HEADERS
from tests.real.conftest import IMAGE, run_docker

pytestmark = pytest.mark.real

RECORDED_API = "1.41"
LABELS = {"soulbox.sandbox_id": "shape", "soulbox.account_id": "nobody"}
# Keyed by what is there, not by what the engine says of it.
FREE_KEYS = {"stats", "Runtimes", "IndexConfigs"}
ABSENT = "0" * 64


class Both:
    """The same container in the real engine and in the look-alike, and each one's API."""

    def __init__(self, engine: docker.DockerClient, script: LookAlike) -> None:
        self.engine, self.script = engine, script
        labels = [f"--label={key}={value}" for key, value in LABELS.items()]
        limits = ("--cpus", "0.5", "--memory", "64m")
        self.real_id = run_docker(
            "run", "-d", *labels, *limits, "-v", "/vol", IMAGE, "sleep", "600"
        )
        self.script_id = script.add(
            "shape",
            "nobody",
            Load(layer_bytes=5, disk_read_bytes_per_ms=1),
            nano_cpus=500_000_000,
            memory_limit_bytes=64 * 2**20,
            volumes=["v" * 64],
        )
        script.volume_bytes["v" * 64] = 7
        self._script_api = docker.APIClient(base_url=script.endpoint, version=RECORDED_API)

    def close(self) -> None:
        self._script_api.close()
        run_docker("rm", "-fv", self.real_id)

    def get(self, path: str) -> tuple[Any, Any]:
        """Return what each says at a path; `ID` in it is the container's own."""
        real, scripted = (
            api.get(f"{api.base_url}/v{RECORDED_API}{path.replace('ID', container_id)}")
            for api, container_id in (
                (self.engine.api, self.real_id),
                (self._script_api, self.script_id),
            )
        )
        assert real.status_code == scripted.status_code
        assert HEADERS.keys() <= real.headers.keys() & scripted.headers.keys()
        assert real.headers["Content-Type"] == scripted.headers["Content-Type"].partition(";")[0]
        return real.json(), scripted.json()

    def act(self, *names: str) -> None:
        for name in names:
            options = ("-t", "0") if name in {"stop", "restart"} else ()
            run_docker(name, *options, self.real_id)
            getattr(self.script, name)(self.script_id)


@pytest.fixture
def both(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Both]:
    version = engine.version()["ApiVersion"]
    if version != RECORDED_API:
        pytest.skip(f"the look-alike is one of API {RECORDED_API}, and this engine of {version}")
    cgroup_version = int(engine.info()["CgroupVersion"])
    with LookAlike(tmp_path / "engine.sock", cgroup_version=cgroup_version) as script:
        both = Both(engine, script)
        yield both
        both.close()


def shape(answer: Any) -> Any:
    """Return the answer with types in the place of values; None for what may be anything."""
    if isinstance(answer, dict):
        return {
            key: None if key in FREE_KEYS else shape(value) for key, value in answer.items()
        } or None
    if isinstance(answer, list):
        return [shape(answer[0])] if answer else None
    return None if answer is None else type(answer).__name__


def differences(real: Any, scripted: Any, where: str = "") -> list[str]:
    if real is None or scripted is None:
        return []
    if isinstance(real, dict) and isinstance(scripted, dict):
        wrong = [f"{where}.{key} in one only" for key in real.keys() ^ scripted.keys()]
        for key in real.keys() & scripted.keys():
            wrong += differences(real[key], scripted[key], f"{where}.{key}")
        return wrong
    if isinstance(real, list) and isinstance(scripted, list):
        return differences(real[0], scripted[0], f"{where}[]")
    return [] if real == scripted else [f"{where} is {real} and {scripted}"]


@pytest.mark.parametrize(
    "path",
    [
        "/version",
        "/info",
        '/containers/json?all=1&filters={"label":["soulbox.account_id=nobody"]}',
        '/containers/json?all=1&filters={"label":{"soulbox.account_id=nobody":true}}',
        "/containers/ID/json",
        "/containers/ID/stats?stream=false&one-shot=true",
        f"/containers/{ABSENT}/json",
        f"/containers/{ABSENT}/stats?stream=false&one-shot=true",
        "/system/df",
    ],
)
def test_an_answer_has_the_real_shape(both: Both, path: str) -> None:
    real, scripted = both.get(path)
    assert differences(shape(real), shape(scripted)) == []


def test_a_layer_is_left_out_while_it_is_empty_and_there_when_it_is_not(both: Both) -> None:
    path = '/containers/json?all=1&size=1&filters={"label":["soulbox.account_id=nobody"]}'
    [real], [scripted] = both.get(path)
    assert "SizeRw" not in real
    assert real.keys() == scripted.keys() - {"SizeRw"}
    run_docker("exec", both.real_id, "dd", "if=/dev/zero", "of=/file", "bs=1k", "count=1")
    [real], [scripted] = both.get(path)
    assert differences(shape(real), shape(scripted)) == []


def test_statistics_of_a_container_that_does_not_run_are_the_same_zeros(both: Both) -> None:
    both.act("stop")
    real, scripted = both.get("/containers/ID/stats?stream=false&one-shot=true")
    assert real | {"id": "", "name": ""} == scripted | {"id": "", "name": ""}
    real, scripted = both.get("/containers/ID/json")
    assert real["State"].keys() == scripted["State"].keys()
    for key in ("Status", "Running", "Paused", "Pid", "ExitCode"):
        assert real["State"][key] == scripted["State"][key], key


def test_a_paused_container_is_told_and_read_alike(both: Both) -> None:
    both.act("pause")
    real, scripted = both.get("/containers/ID/stats?stream=false&one-shot=true")
    assert differences(shape(real), shape(scripted)) == []
    real, scripted = both.get("/containers/ID/json")
    for key in ("Status", "Running", "Paused"):
        assert real["State"][key] == scripted["State"][key], key


def test_the_same_acts_are_told_by_the_same_events(both: Both) -> None:
    run_docker("update", "--cpus", "0.25", both.real_id)
    both.script.update(both.script_id, nano_cpus=250_000_000)
    run_docker("rename", both.real_id, f"shape-{both.real_id[:12]}")
    both.script.rename(both.script_id, "shape")
    both.act("pause", "unpause", "restart", "stop", "start")
    # The real engine's `since` and `until` are asked for in whole seconds here.
    time.sleep(1)
    told = []
    for api, container_id in (
        (both.engine.api, both.real_id),
        (docker.APIClient(base_url=both.script.endpoint, version=RECORDED_API), both.script_id),
    ):
        events = api.events(
            since=int(time.time()) - 60,
            until=int(time.time()),
            filters={"type": "container", "container": container_id},
            decode=True,
        )
        # The real engine may send the polite signal first, at once followed by the other.
        told.append(
            [
                (event["Action"], shape(event))
                for event in events
                if event["Actor"]["Attributes"].get("signal") != "15"
            ]
        )
    api.close()
    assert told[0] == told[1]
