"""Admin pages, commands and tasks of metering."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from metering import models, tasks
from metering.host_queues import MOST_WAITING
from metering.models import Host, StreamCursor
from metering.partitions import make_partitions
from tests.metering.fleet import MINUTE, SECOND, Fleet

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("admin", password="x"))  # noqa: S106 - a test's
    return client


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "accountregistration",
        "sandbox",
        "life",
        "usagerow",
        "gap",
        "lateusage",
        "refusal",
    ],
)
def test_every_list_opens_and_can_be_searched(staff: Client, name: str) -> None:
    fleet = Fleet()
    fleet.add("sbx-seen")
    fleet.add("bad", account_id="nobody's")
    fleet.run(20 * SECOND)
    for query in ("", "?q=sbx"):
        answer = staff.get(f"/admin/metering/{name}/{query}")
        assert answer.status_code == 200, name


def test_the_usage_list_shows_what_was_measured(staff: Client) -> None:
    fleet = Fleet()
    fleet.add("sbx-seen", cpu_ns_per_ms=1_000_000)
    fleet.run(20 * SECOND)
    page = staff.get("/admin/metering/usagerow/").content.decode()
    assert "sbx-seen" in page
    assert "20.000000" in page
    assert "90.0 %" in page


def test_nobody_adds_or_changes_a_fact(staff: Client) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(10 * SECOND)
    life = models.Life.objects.get()
    assert staff.get("/admin/metering/life/add/").status_code == 403
    assert staff.post(f"/admin/metering/life/{life.pk}/change/", {}).status_code == 403
    assert staff.post(f"/admin/metering/life/{life.pk}/delete/", {"post": "yes"}).status_code == 403


def test_add_host_names_the_queue_its_worker_serves() -> None:
    output, host_id = StringIO(), uuid4()
    for _ in range(2):
        call_command("add_host", "alpha", "--id", str(host_id), stdout=output)
    host = Host.objects.get()
    assert (host.pk, host.endpoint) == (host_id, "unix:///var/run/docker.sock")
    assert StreamCursor.objects.filter(host=host).count() == 1
    assert f"-Q collect.{host_id}" in output.getvalue()


def test_metering_status_says_what_is_wrong() -> None:
    fleet = Fleet()
    output = StringIO()
    call_command("metering_status", "--json", stdout=output)
    (state,) = json.loads(output.getvalue())["hosts"]
    assert state["state"].startswith("silent")
    fleet.now = timezone.now() - 10 * SECOND
    fleet.add("sbx")
    fleet.run(8 * SECOND)
    output = StringIO()
    call_command("metering_status", stdout=output)
    assert "metered; 1 running" in output.getvalue()


def test_a_tick_sends_each_active_host_one_pass_that_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    active, retired = Fleet(), Fleet()
    Host.objects.filter(pk=retired.host_id).update(is_active=False)
    sent: list[tuple[Any, ...]] = []

    def send(arguments: tuple[str], *, queue: str, expires: float) -> None:
        sent.append((*arguments, queue, expires))

    monkeypatch.setattr(tasks.collect, "apply_async", send)
    tasks.collect_all()
    assert sent == [(str(active.host_id), f"collect.{active.host_id}", 10)]


def test_a_queue_that_nobody_takes_from_does_not_fill_the_broker() -> None:
    nobody, another = Fleet(), Fleet()
    queues = [f"collect.{fleet.host_id}" for fleet in (nobody, another)]
    with redis.Redis.from_url(settings.REDIS_URL) as broker:
        try:
            for _ in range(MOST_WAITING + 3):
                tasks.collect_all()
                tasks.read_storage_of_all()
                broker.delete(queues[1])
            assert broker.llen(queues[0]) == MOST_WAITING
            tasks.collect_all()
            assert broker.llen(queues[1]) == 1
        finally:
            broker.delete(*queues)


def test_a_pass_and_a_fold_by_their_tasks_count_usage() -> None:
    fleet = Fleet()
    endpoint = f"simulator:?account={fleet.account_id}"
    Host.objects.filter(pk=fleet.host_id).update(
        endpoint=endpoint, registered_at=timezone.now() - MINUTE
    )
    tasks.collect(str(fleet.host_id))
    tasks.aggregate(str(fleet.host_id))
    assert models.UsageRecord.objects.count() >= 4
    assert StreamCursor.objects.get().sample_count == 4


def test_an_outage_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet()
    Host.objects.filter(pk=fleet.host_id).update(endpoint="simulator:")
    tasks.collect(str(fleet.host_id))
    (record,) = caplog.records
    assert "collecting failed: 'simulator:' names no account" in record.getMessage()
    assert record.exc_info is None
    assert UUID(record.__dict__["host"]) == fleet.host_id


@pytest.mark.django_db(databases=["default", "owner"])
def test_partitions_are_made_for_the_months_around_and_only_once() -> None:
    far = timezone.now().replace(year=2031, month=12, day=5)
    made = make_partitions(now=far)
    months = ["2031_10", "2031_11", "2031_12", "2032_01", "2032_02", "2032_03"]
    assert sorted(made) == sorted(months * 3)
    assert make_partitions(now=far) == []
