from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from metering import stream
from metering.models import Host, StreamCursor
from metering.samples import Batch
from metering.services import register_host
from soulbox.doctor import examine
from tests.metering.fleet import Fleet

pytestmark = pytest.mark.django_db(databases=["default", "owner"])


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
    with pytest.raises(CommandError, match="1 of 5 are wrong"):
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
