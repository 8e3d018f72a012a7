"""What a dashboard is made of, as the JSON that Grafana 11 and 12 read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
SCHEMA_VERSION = 39
COLUMNS = 24
HEIGHTS = {"row": 1, "stat": 4, "timeseries": 8, "bargauge": 8, "table": 8, "heatmap": 8}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are named: `{{label}}`, or in words."""

    expr: str
    legend: str


def told(series: str, *labels: str) -> str:
    """Return the query of what each web process tells the same of, by these labels, told once."""
    by = f" by ({', '.join(labels)}) " if labels else ""
    return f"max{by}({series})"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. It turns red at the last of its `limits`, and orange at the one before.

    `is_low_bad`: it turns so below them. `alert` is the alert that is about the same; its part of
    the runbook is linked.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 12
    limits: tuple[float, ...] = ()
    is_low_bad: bool = False
    alert: str = ""
    is_stacked: bool = False
    least: float | None = 0
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A heading over the panels that follow."""

    title: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable that is chosen at the top, of the values of a label. All of them, at first."""

    name: str
    title: str
    series: str
    label: str


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. Panels stand beside each other in their order, as far as a line has room."""

    name: str
    title: str
    description: str
    items: Sequence[Panel | Row]
    choices: Sequence[Choice] = field(default=())

    def json(self) -> Json:
        """Return what Grafana reads."""
        return {
            "uid": f"soulbox-{self.name}",
            "title": self.title,
            "description": self.description,
            "tags": ["soulbox"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "utc",
            "annotations": {"list": [_ALERTS]},
            "links": [
                {
                    "title": "Other dashboards",
                    "type": "dashboards",
                    "tags": ["soulbox"],
                    "asDropdown": True,
                    "includeVars": False,
                    "keepTime": True,
                },
                {"title": "Runbook", "type": "link", "url": "${runbook}", "targetBlank": True},
            ],
            "templating": {"list": [*map(_variable, self.choices), _RUNBOOK]},
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[Json]:
        x = y = tallest = 0
        for number, item in enumerate(self.items, start=1):
            kind = "row" if isinstance(item, Row) else item.kind
            width = COLUMNS if isinstance(item, Row) else item.width
            if x + width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"x": x, "y": y, "w": width, "h": HEIGHTS[kind]}
            x, tallest = x + width, max(tallest, HEIGHTS[kind])
            yield {"id": number, "gridPos": place, **_said(item)}


# Where an alert fires is drawn into every picture.
_ALERTS: Json = {
    "name": "Alerts",
    "datasource": DATA_SOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing"}',
    "titleFormat": "{{alertname}}",
    "step": "60s",
}
# It lies in the repository; whoever serves it says where.
_RUNBOOK: Json = {
    "name": "runbook",
    "label": "Runbook",
    "description": "Where docs/runbook.md can be read",
    "type": "textbox",
    "query": "docs/runbook.md",
    "current": {"text": "docs/runbook.md", "value": "docs/runbook.md"},
    "hide": 0,
}


def _variable(choice: Choice) -> Json:
    query = f"label_values({choice.series}, {choice.label})"
    return {
        "name": choice.name,
        "label": choice.title,
        "type": "query",
        "datasource": DATA_SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "values"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _said(item: Panel | Row) -> Json:
    if isinstance(item, Row):
        return {"type": "row", "title": item.title, "collapsed": False, "panels": []}
    links = []
    if item.alert:
        url = f"${{runbook}}#{item.alert.lower()}"
        links = [{"title": f"Runbook: {item.alert}", "url": url, "targetBlank": True}]
    return {
        "type": item.kind,
        "title": item.title,
        "description": item.description,
        "datasource": DATA_SOURCE,
        "links": links,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATA_SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "editorMode": "code",
                # A table and a single figure are of now.
                "instant": item.kind != "timeseries",
                "range": item.kind == "timeseries",
                "format": "table" if item.kind == "table" else "time_series",
            }
            for place, query in enumerate(item.queries)
        ],
        "fieldConfig": {"defaults": _field(item), "overrides": []},
        "options": _OPTIONS[item.kind],
    }


def _field(item: Panel) -> Json:
    shown: Json = {"unit": item.unit, "thresholds": _thresholds(item)}
    shown |= {} if item.least is None else {"min": item.least}
    shown |= {} if item.most is None else {"max": item.most}
    if item.kind != "timeseries":
        return shown | {"color": {"mode": "thresholds"}}
    return shown | {
        "color": {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "line",
            "fillOpacity": 25 if item.is_stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if item.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if item.limits else "off"},
        },
    }


def _thresholds(item: Panel) -> Json:
    colours = ["green", "orange", "red"] if len(item.limits) > 1 else ["green", "red"]
    edges: list[float | None] = [None, *sorted(item.limits)]
    if item.is_low_bad:
        colours.reverse()
    steps = [{"color": colour, "value": edge} for colour, edge in zip(colours, edges, strict=False)]
    return {"mode": "absolute", "steps": steps}


_SUMMED: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _SUMMED,
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    },
    "bargauge": {
        "reduceOptions": _SUMMED,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}
