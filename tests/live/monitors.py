"""The deployed files of Prometheus and Alertmanager, with other addresses and shorter times."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.processes import ROOT

DEPLOY = ROOT / "deploy"
LONGEST_S = 45
"""No wait or time is longer here. Beat sends the rarest tick that something waits for each 30 s."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SLOWER_S = {"soulbox_figures_age_seconds": 90}
"""What a worker does each minute."""
_RANGE = re.compile(r"((?:[\[:]|\boffset +))(\d+)([smhd])\b")
# A comparison of a series of seconds, with or without labels, with a number.
_SECONDS = re.compile(r"((\w+_seconds)(?:\{[^}]*\})? *(?:<=|>=|<|>) *)(\d+)")

Yaml = dict[str, Any]


def shortened(expression: str) -> str:
    """Return the expression with no range, offset or limit of seconds over LONGEST_S.

    Series, matchers, functions, ratios and counts stay as they are.
    """
    spans = _RANGE.sub(
        lambda found: f"{found[1]}{min(int(found[2]) * _UNITS[found[3]], LONGEST_S)}s", expression
    )
    return _SECONDS.sub(
        lambda found: f"{found[1]}{min(int(found[3]), SLOWER_S.get(found[2], LONGEST_S))}", spans
    )


def rules() -> Yaml:
    """Return the rules as deployed, with shorter times. `for` is what a second look takes."""
    told: Yaml = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for group in told["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule["expr"] = shortened(rule["expr"])
            for wait in {"for", "keep_firing_for"} & rule.keys():
                rule[wait] = "2s"
    return told


def prometheus(folder: Path, targets: Mapping[str, str], alertmanager: str, token: str) -> Path:
    """Write Prometheus' file with other addresses, and return where; its rules lie beside it.

    A job none of whose targets is here is left out.
    """
    told: Yaml = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    told["global"] |= {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"}
    told["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    jobs = []
    for job in told["scrape_configs"]:
        asked = {target for static in job.get("static_configs", []) for target in static["targets"]}
        if here := [targets[target] for target in sorted(asked) if target in targets]:
            for interval in ("scrape_interval", "scrape_timeout"):
                job.pop(interval, None)
            if "authorization" in job:
                job["authorization"] = {"credentials": token}
            jobs.append(job | {"static_configs": [{"targets": here}]})
    told["scrape_configs"] = jobs
    told["rule_files"] = ["alerts.yml"]
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules()))
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(told))
    return file


def alertmanager(folder: Path, pager: str) -> Path:
    """Write Alertmanager's file with the pager as each receiver, and return where."""
    told: Yaml = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    told["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    told["receivers"] = [
        {"name": receiver["name"], "webhook_configs": [{"url": pager, "send_resolved": True}]}
        for receiver in told["receivers"]
    ]
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(told))
    return file


def ask(address: str, path: str, **arguments: str) -> Any:
    """Return the JSON of an answer of one of them."""
    query = f"?{urlencode(arguments)}" if arguments else ""
    with urlopen(f"http://{address}{path}{query}", timeout=30) as answer:
        return json.load(answer)
