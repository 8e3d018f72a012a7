from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django.fixtures import Settings

from metering import stream
from metering.models import Host, StreamCursor
from metering.samples import Batch
from metering.services import register_host
from soulbox import doctor, doctor_machine
from soulbox.canaries import sing
from soulbox.celery import QUEUES
from soulbox.doctor import examine
from soulbox.doctor_servers import postgresql_findings, redis_findings
from soulbox.findings import Finding
from soulbox.models import Canary
from tests.metering.fleet import Fleet

pytestmark = pytest.mark.django_db(databases=["default", "owner"])


@pytest.fixture(autouse=True)
def _workers_are_at_work() -> None:
    for queue in QUEUES:
        sing(queue, now=timezone.now())


def texts(*, good: bool) -> list[str]:
    return [found.text for found in examine(now=timezone.now()) if found.is_good is good]


def metered_host() -> Host:
    host = Fleet(registered_at=timezone.now() - timedelta(hours=1)).host
    now = timezone.now()
    Host.objects.filter(pk=host.pk).update(
        source="cgroup v1", last_seen_at=now, clock_offset_ms=-1500
    )
    StreamCursor.objects.filter(host=host).update(collected_until=now)
    return host


def test_a_metered_host_is_shown_with_its_source_its_clock_and_what_waits() -> None:
    host = metered_host()
    stream.append(host.pk, Batch(collected_ms=1, interval_ms=2000))
    assert texts(good=False) == []
    (line,) = [text for text in texts(good=True) if host.name in text]
    assert "(cgroup v1): metered" in line
    assert "clock -1.5 s, 1 batches wait" in line


def test_what_is_wrong_is_named_and_ends_the_command_with_an_error() -> None:
    assert texts(good=False) == ["No host is metered: manage.py add_host registers one"]
    host = metered_host()
    Host.objects.filter(pk=host.pk).update(problem="The engine did not answer")
    printed = StringIO()
    with pytest.raises(CommandError, match=r"1 of \d+ are wrong"):
        call_command("doctor", stdout=printed)
    assert "WRONG" in printed.getvalue()
    assert "The engine did not answer" in printed.getvalue()


def test_a_redis_that_fills_up_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    metered_host()
    monkeypatch.setattr("soulbox.doctor.memory_share", lambda: 0.71)
    assert texts(good=False) == ["Redis uses 71% of what it may for streams"]


def test_a_host_that_sends_is_judged_by_what_it_sent() -> None:
    now = timezone.now()
    host = register_host(host_id=metered_host().pk, name="sender", endpoint="api:", now=now)
    Host.objects.filter(pk=host.pk).update(last_seen_at=now - timedelta(minutes=5))
    assert texts(good=False) == []
    Host.objects.filter(pk=host.pk).update(last_seen_at=None)
    assert "nothing was sent yet" in texts(good=False)[0]


def test_a_queue_that_nobody_serves_is_wrong() -> None:
    metered_host()
    Canary.objects.filter(queue="billing").update(sang_at=timezone.now() - timedelta(minutes=4))
    assert texts(good=False) == [
        "No worker took a task of the queue billing lately, or beat is down"
    ]


NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
SERVER = {
    "version": "16.4",
    "role": "soulbox_app",
    "is_mighty": False,
    "is_standby": False,
    "encoding": "UTF8",
    "autovacuum": "on",
    "clock": NOW,
    "connections": 100,
    "used": 10,
    "system": 1,
    "database": "soulbox",
    "owned": 0,
}
INFO = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": 100,
    "used_memory": 10,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "role": "master",
}


def faults(found: Iterable[Finding]) -> list[str]:
    return [one.text for one in found if not one.is_good]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"is_mighty": True}, "NOSUPERUSER"),
        ({"owned": 3}, "owns 3 tables"),
        ({"is_standby": True}, "name the primary"),
        ({"encoding": "SQL_ASCII"}, "ENCODING 'UTF8'"),
        ({"autovacuum": "off"}, "set autovacuum = on"),
        ({"clock": NOW + timedelta(seconds=6)}, "+6.0 s"),
        ({"used": 91}, "raise max_connections"),
        ({"database": "other"}, "name the same one"),
    ],
)
def test_a_postgresql_is_told_what_to_mend(change: dict[str, Any], says: str) -> None:
    owner = SERVER | {"role": "soulbox_owner"}
    assert faults(postgresql_findings(SERVER, owner, now=NOW)) == []
    [fault] = faults(postgresql_findings(SERVER | change, owner, now=NOW))
    assert says in fault


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"role": "slave"}, "name the primary"),
        ({"aof_last_write_status": "err"}, "look at its disk"),
        ({"used_memory": 91}, "91% of maxmemory"),
    ],
)
def test_a_redis_is_told_what_to_mend(change: dict[str, Any], says: str) -> None:
    assert faults(redis_findings("REDIS_URL", INFO, is_cache=False)) == []
    [fault] = faults(redis_findings("REDIS_URL", INFO | change, is_cache=False))
    assert says in fault


def test_what_works_and_should_be_known_is_a_note() -> None:
    found = list(redis_findings("CACHE_REDIS_URL", INFO | {"maxmemory": 0}, is_cache=True))
    assert [one.level for one in found] == ["ok", "note"]
    found = list(redis_findings("CACHE_REDIS_URL", INFO, is_cache=True))
    assert "allkeys-lru" in found[-1].text


def test_months_without_tables_and_a_full_disk_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(doctor_machine.partitions(now=timezone.now())) == []
    [fault] = faults(doctor_machine.partitions(now=timezone.now() + timedelta(days=365)))
    assert "manage.py migrate" in fault
    monkeypatch.setattr(doctor_machine, "LEAST_FREE_BYTES", 1 << 60)
    assert all("make room" in text for text in faults(doctor_machine.disks()))


def test_a_mail_server_and_an_engine_that_do_not_answer_are_named(settings: Settings) -> None:
    settings.MAIL_IS_SET_UP = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    [fault] = faults(doctor_machine.mail_server())
    assert fault.startswith("EMAIL_URL: the mail server takes no mail")
    register_host(host_id=uuid4(), name="far", endpoint="tcp://127.0.0.1:9", now=timezone.now())
    [found] = doctor_machine.engines()
    assert (found.level, "does not answer from here" in found.text) == ("note", True)


def test_a_missing_font_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.documents.pdf.FONTS", ("Comic Neue Nobody Has",))
    [fault] = faults(doctor_machine.fonts())
    assert "No font Comic Neue Nobody Has" in fault


@pytest.mark.parametrize(
    ("key", "secrets", "says"),
    [
        ("pk_test_1", ["whsec_1"], "is no secret key"),
        ("sk_live_1", ["whsec_1"], "take a test key"),
        ("sk_test_1", [], "no webhook is taken"),
        ("sk_test_1", ["sk_test_1"], "no signing secret"),
    ],
)
def test_keys_of_stripe_are_of_the_right_kind(
    settings: Settings, key: str, secrets: list[str], says: str
) -> None:
    settings.STRIPE_API_KEY, settings.STRIPE_WEBHOOK_SECRETS = key, secrets
    settings.STRIPE_IS_TEST = key.startswith("sk_test_")
    assert any(says in text for text in faults(doctor._keys_of_stripe()))
