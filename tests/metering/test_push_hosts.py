"""Hosts that nobody asks, because their samples are sent."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from metering.aggregator import aggregate_host
from metering.models import StreamCursor
from metering.queries import streams_behind
from metering.services import register_host
from metering.tasks import collect_all
from tests.metering.runtime import MINUTE, NOON, Runtime, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


def test_a_push_host_is_up_to_date_once_its_stream_is_read() -> None:
    runtime = Runtime()
    runtime.send(runtime.sample())
    runtime.host.refresh_from_db()
    assert runtime.host.last_seen_at == NOON
    assert streams_behind(runtime.account_id, until=NOON) == [runtime.host.name]
    # Redis numbers entries by the real clock, later than this noon or earlier.
    runtime.aggregate(now=NOON + MINUTE)
    assert StreamCursor.objects.get().collected_until == NOON + MINUTE
    assert streams_behind(runtime.account_id, until=NOON) == []
    runtime.aggregate(now=NOON + 2 * MINUTE)
    assert StreamCursor.objects.get().collected_until == NOON + 2 * MINUTE
    # A clock that is behind another worker's takes nothing back.
    runtime.aggregate(now=NOON)
    assert StreamCursor.objects.get().collected_until == NOON + 2 * MINUTE


def test_a_push_host_that_is_sent_to_all_the_time_is_not_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Runtime()
    for minute in (3, 2, 1):
        runtime.send(runtime.sample(read_at=text_of(NOON - minute * MINUTE)))
    monkeypatch.setattr("metering.aggregator.COMMITS_PER_RUN", 1)
    # One commit, which is not the one that finds the end.
    now = datetime.now(UTC) + MINUTE
    runtime.aggregate(now=now)
    until = StreamCursor.objects.get().collected_until
    assert until is not None
    assert now - 3 * MINUTE < until < now


def test_a_docker_host_is_not_up_to_date_by_an_empty_stream() -> None:
    host = register_host(host_id=uuid4(), name="docker", endpoint="unix:///nowhere", now=NOON)
    Runtime()
    assert aggregate_host(host.pk, now=NOON) == 0
    assert StreamCursor.objects.get(host=host).collected_until is None


def test_nobody_collects_where_samples_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime()
    host = register_host(host_id=uuid4(), name="docker", endpoint="unix:///nowhere", now=NOON)
    sent: list[str] = []
    monkeypatch.setattr(
        "metering.tasks.collect.apply_async", lambda args, **_: sent.append(args[0])
    )
    collect_all()
    assert sent == [str(host.pk)]
