"""The alerts: each fires and does not, reads what is there to be read, and says what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from soulbox.tasks import take_figures
from tests.metering.fleet import Fleet
from tests.payments.attempts import attempt_that_ended

DEPLOY: Path = settings.BASE_DIR / "deploy"
PROMETHEUS = DEPLOY / "prometheus"


def tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of Prometheus' tools. In CI it has to be there."""
    if not os.environ.get("CI") and shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed: Debian's prometheus, prometheus-alertmanager")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def test_the_rules_fire_and_do_not() -> None:
    done = tool("promtool", "test", "rules", PROMETHEUS / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alerts()])
def test_without_any_one_of_them_the_test_of_the_rules_fails(alert: str, tmp_path: Path) -> None:
    told = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    for group in told["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") == alert:
                rule["expr"] = "vector(1) < 0"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(told))
    shutil.copy(PROMETHEUS / "alerts_test.yml", tmp_path)
    done = tool("promtool", "test", "rules", tmp_path / "alerts_test.yml")
    assert done.returncode != 0
    assert alert in done.stdout + done.stderr


def test_prometheus_and_alertmanager_take_their_files() -> None:
    for command in (
        ("promtool", "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml"),
        ("promtool", "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yml"),
        ("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml"),
    ):
        done = tool(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.django_db
def test_they_read_what_there_is() -> None:
    assert Fleet().host.is_active
    attempt_that_ended(1, datetime.now(UTC), "succeeded")
    take_figures()
    text = Client().get("/metrics").content.decode()
    told = {family.name: family for family in text_string_to_metric_families(text)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        for name in re.findall(r"\bdjango_\w+", rule["expr"]):
            assert re.sub("_(total|bucket)$", "", name) in told, rule
        assert set(re.findall(r"\bsoulbox:[\w:]+", rule["expr"])) <= recorded, rule
        for name, matchers in re.findall(r"\b(soulbox_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            family = name.removesuffix("_total")
            assert family in told, rule
            assert name == family or told[family].type == "counter"
            for label, value in re.findall(r'(\w+)!?="([^"]*)"', matchers):
                values = {sample.labels.get(label) for sample in told[family].samples}
                assert value in values, rule


def test_each_says_how_bad_it_is_and_what_to_do() -> None:
    runbook = (settings.BASE_DIR / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^### ((?:[A-Z][a-z]+){2,})$", runbook, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        notes = rule["annotations"]
        assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert notes["summary"]
        assert notes["description"].endswith(".")
