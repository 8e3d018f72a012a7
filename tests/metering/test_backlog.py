"""Streams drained after an outage, several at once, and the reason where one is not."""

from __future__ import annotations

from datetime import datetime
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from metering import backlog
from metering.aggregator import aggregate_host
from metering.models import StreamCursor, UsageRecord
from metering.queries import stream_lag
from metering.stream import StreamUnavailableError
from tests.metering.history import History, Taken

pytestmark = pytest.mark.django_db(transaction=True)


def behind(*, entries: int = 30) -> History:
    history = History()
    life = history.begin("sbx")
    history.send(life, [Taken(second * 2000, cpu_ns=second) for second in range(1, entries + 1)])
    return history


def drain(*arguments: str) -> str:
    out = StringIO()
    call_command("process_backlog", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "PAUSE_S", 0)


@pytest.fixture
def fold_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold as of the samples' own time: the command reads the clock."""

    def at_their_time(host_id: UUID, *, now: datetime) -> int:
        del now
        return aggregate_host(host_id, now=LATER)

    monkeypatch.setattr(backlog, "aggregate_host", at_their_time)


LATER = datetime.fromisoformat("2026-11-03T00:00:00+00:00")


@pytest.mark.usefixtures("fold_now")
def test_several_hosts_are_drained_at_once_and_their_samples_counted() -> None:
    histories = [behind() for _ in range(4)]
    shown = drain("--workers", "3")
    for history in histories:
        assert stream_lag(history.host_id).entries == 0
        assert history.host.name in shown
    assert UsageRecord.objects.count() == 4
    assert drain("--workers", "3").count(" 0 ") >= 4


@pytest.mark.usefixtures("fold_now")
def test_only_the_hosts_named_are_drained() -> None:
    one, other = behind(), behind()
    drain("--host", one.host.name)
    assert stream_lag(one.host_id).entries == 0
    assert stream_lag(other.host_id).entries == 30
    with pytest.raises(CommandError, match="--host nowhere: no such host"):
        drain("--host", "nowhere")


def test_a_host_that_cannot_be_drained_is_named_with_the_reason_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = behind(), behind()

    def one_fails(host_id: UUID, *, now: datetime) -> int:
        del now
        if host_id == bad.host_id:
            raise StreamUnavailableError("Redis did not give the stream: it is away")
        return aggregate_host(host_id, now=LATER)

    monkeypatch.setattr(backlog, "aggregate_host", one_fails)
    with pytest.raises(CommandError, match=f"{bad.host.name}: StreamUnavailableError: Redis did"):
        drain()
    assert stream_lag(good.host_id).entries == 0


def test_a_host_that_another_worker_holds_is_named_after_some_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = behind()
    monkeypatch.setattr(backlog, "aggregate_host", lambda *_, **__: 0)
    with pytest.raises(CommandError, match="does another worker hold the host's cursor"):
        drain()
    assert StreamCursor.objects.get(host=history.host_id).entry_id == "0-0"
