"""The dashboards: Grafana can read them. What they ask Prometheus is tried in tests/live."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.deployment.dashboards import GRAFANA, dashboards, panels, variables
from tests.processes import ROOT

BOARDS = dashboards()
# Of Grafana's own list of units, those that are used.
UNITS = {"short", "s", "percentunit", "ops", "bool_yes_no", "reqps"}
KINDS = {"stat", "timeseries", "table", "bargauge"}
COLOURS = {"green", "orange", "red"}


def provisioned(kind: str) -> dict[str, Any]:
    [file] = (GRAFANA / "provisioning" / kind).glob("*.yml")
    told: dict[str, Any] = yaml.safe_load(file.read_text())
    assert told["apiVersion"] == 1
    return told


def test_there_is_a_dashboard_for_each_question() -> None:
    assert set(BOARDS) == {"api", "business", "metering", "payments", "workers"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


def test_they_are_as_the_page_that_makes_them_says() -> None:
    done = subprocess.run(
        [sys.executable, GRAFANA / "make.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_grafana_finds_them_and_their_source() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    [provider] = provisioned("dashboards")["providers"]
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    [source] = provisioned("datasources")["datasources"]
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in compose  # type: ignore[index]  # None fails too


@pytest.mark.parametrize("name", BOARDS)
def test_each_panel_can_be_read(name: str) -> None:
    board = BOARDS[name]
    [source] = provisioned("datasources")["datasources"]
    assert (board["uid"], board["schemaVersion"]) == (f"soulbox-{name}", 39)
    assert board["title"]
    assert board["description"].endswith(".")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["type"] in KINDS
        shown = panel["fieldConfig"]["defaults"]
        assert shown["unit"] in UNITS
        steps = shown["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
        assert {step["color"] for step in steps} <= COLOURS
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_lies_over_another(name: str) -> None:
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_above


@pytest.mark.parametrize("name", BOARDS)
def test_each_variable_is_used_and_each_that_is_used_is_there(name: str) -> None:
    board = BOARDS[name]
    known = {variable["name"] for variable in variables(board)}
    said = " ".join(target["expr"] for panel in panels(board) for target in panel["targets"])
    assert set(re.findall(r"\$(\w+)", said)) - {"__rate_interval"} == known


def test_each_page_of_the_runbook_that_is_linked_is_there() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    there = {found.lower() for found in re.findall(r"^#+ (\w+)$", runbook, re.MULTILINE)}
    linked = {
        link["url"].partition("#")[2]
        for board in BOARDS.values()
        for panel in panels(board)
        for link in panel["links"]
    }
    assert linked
    assert linked <= there
