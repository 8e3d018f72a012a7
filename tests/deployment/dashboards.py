"""The dashboards as Grafana reads them from deploy/grafana."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.processes import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
Json = dict[str, Any]
FILLED = {
    # Four looks of a Prometheus that looks each 3 s, and some more.
    "$__rate_interval": "20s",
}


def dashboards() -> dict[str, Json]:
    """Return each dashboard by the name of its file."""
    files = sorted((GRAFANA / "dashboards").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def panels(board: Json) -> list[Json]:
    """Return the panels that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield where each query is, and the query as it is sent when all values are chosen."""
    for name, board in dashboards().items():
        filled = FILLED | {
            f"${variable['name']}": variable["allValue"] for variable in variables(board)
        }
        for panel in panels(board):
            for target in panel["targets"]:
                query = target["expr"]
                for variable, value in filled.items():
                    query = query.replace(variable, value)
                yield f"{name}: {panel['title']} {target['refId']}", query


def variables(board: Json) -> list[Json]:
    """Return the variables whose values are asked for."""
    return [one for one in board["templating"]["list"] if one["type"] == "query"]
