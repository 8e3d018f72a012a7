"""Each alert fires when its thing is broken, is told to whom it may concern, and resolves."""

from __future__ import annotations

import re

import pytest

from tests.live import monitors
from tests.live.breaking import Breakage
from tests.live.conftest import AT_FIRST, COUNTED, FOUND, HELD, HIDING
from tests.live.watching import Watch
from tests.processes import ROOT, wait_until

# A stack of fifteen processes starts in it, on a machine that others use.
pytestmark = pytest.mark.timeout(900)

ALERTS = {
    rule["alert"]: rule["labels"]["severity"]
    for group in monitors.rules()["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
BROKEN = (*AT_FIRST, *COUNTED, *FOUND, *HELD, *HIDING)
NOT_MADE_TO_FIRE = {
    "ScrapeSlow": "A scrape takes over five seconds with millions of accounts.",
    "CertificateExpires": "Debian has no blackbox exporter that is installed here.",
    "DiskFull": "A machine's disk would have to be filled.",
}
"""Alerts whose thing is not broken here, with the reason. promtool's test has them all."""
RECEIVERS = {"page": "pages", "ticket": "tickets"}
INHIBITED = {"BillingLate", "WebhookLag", "CollectionLate"}
"""They follow from CanaryMissing, of which people are told."""


def test_each_alert_is_broken_here_or_said_not_to_be() -> None:
    assert {*BROKEN, *NOT_MADE_TO_FIRE} == set(ALERTS)
    assert all(NOT_MADE_TO_FIRE.values())


def test_the_page_on_monitoring_names_who_wakes_somebody() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    said = " ".join(re.findall(r"^- \S.*: (.+)$", page.partition("A `page`")[2], re.MULTILINE))
    assert set(said.replace(",", "").split()) == {
        alert for alert, severity in ALERTS.items() if severity == "page"
    }


@pytest.mark.parametrize("alert", [*AT_FIRST, *COUNTED, *FOUND, *HELD])
def test_it_fires_while_its_thing_is_broken(alert: str, broken: Watch) -> None:
    assert broken.seen[alert]


def test_what_only_follows_from_a_missing_canary_is_held_back(broken: Watch) -> None:
    assert {alert for alert in INHIBITED if "suppressed" in broken.seen[alert]} == INHIBITED
    assert {alert for alert, states in broken.seen.items() if "suppressed" in states} == INHIBITED


@pytest.mark.parametrize("alert", BROKEN)
def test_it_resolves_once_its_thing_is_mended(
    alert: str, mended: Watch, breakage: Breakage
) -> None:
    assert mended.seen[alert]
    told = breakage.stack.pager.told
    if alert not in INHIBITED:
        receiver = RECEIVERS[ALERTS[alert]]
        both = {(receiver, alert, "firing"), (receiver, alert, "resolved")}
        wait_until(lambda: both <= told, seconds=60, what=f"{both - told}")
    assert {receiver for receiver, name, _ in told if name == alert} <= {RECEIVERS[ALERTS[alert]]}
