"""Beat sends, workers take, rows are written: each queue's canary tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from soulbox.canaries import MISSING_AFTER, ages, missing, sing
from soulbox.celery import CANARY_INTERVAL_S, QUEUES, app
from soulbox.models import Canary
from soulbox.tasks import sing as sing_task
from tests.processes import running, wait_until

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)


def test_each_queue_has_a_canary_that_beat_sends_there() -> None:
    entries = [
        entry for entry in app.conf.beat_schedule.values() if entry["task"] == sing_task.name
    ]
    assert [(entry["args"], entry["options"]["queue"]) for entry in entries] == [
        ((queue,), queue) for queue in QUEUES
    ]
    assert {entry["schedule"] for entry in entries} == {CANARY_INTERVAL_S}


def test_a_canary_is_missing_until_it_sings_and_when_it_is_silent_for_long() -> None:
    assert missing(now=NOON) == list(QUEUES)
    for queue in QUEUES:
        sing(queue, now=NOON)
    assert missing(now=NOON + MISSING_AFTER) == []
    later = NOON + MISSING_AFTER + timedelta(seconds=1)
    assert missing(now=later) == list(QUEUES)
    sing("billing", now=later)
    assert missing(now=later) == [queue for queue in QUEUES if queue != "billing"]
    assert ages(now=later)["billing"] == timedelta(0)
    assert Canary.objects.count() == len(QUEUES)


def test_the_command_says_which_and_ends_with_an_error() -> None:
    for queue in QUEUES:
        sing(queue, now=datetime.now(UTC))
    printed = StringIO()
    call_command("canaries", "--json", stdout=printed)
    told = json.loads(printed.getvalue())
    assert list(told) == list(QUEUES)
    assert all(0 <= age_s < 60 for age_s in told.values())
    Canary.objects.get(queue="payments").delete()
    with pytest.raises(CommandError, match="No worker took a task of payments lately"):
        call_command("canaries", stdout=printed)
    assert "payments: never" in printed.getvalue()


def test_a_monitor_reads_how_old_each_is() -> None:
    sing("default", now=datetime.now(UTC) - timedelta(seconds=100))
    text = Client().get("/metrics").content.decode()
    lines = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("soulbox_canary")
    )
    assert 100 <= float(lines.pop('soulbox_canary_age_seconds{queue="default"}')) < 160
    assert set(lines.values()) == {"+Inf"}
    assert len(lines) == len(QUEUES) - 1


@pytest.mark.django_db(transaction=True)
def test_a_real_worker_lets_it_sing(service_environment: Mapping[str, str], tmp_path: Path) -> None:
    arguments = ("-m", "celery", "-A", "soulbox", "worker", "-Q", "payments", "-c", "1")
    with running(
        *arguments, "-n", "canaries@%h", env=service_environment, log=tmp_path / "worker.log"
    ):
        sing_task.apply_async(("payments",), queue="payments", expires=CANARY_INTERVAL_S)
        wait_until(Canary.objects.exists, seconds=60, what="the canary of payments")
    assert missing(now=datetime.now(UTC)) == [queue for queue in QUEUES if queue != "payments"]
