"""An end that was in a batch which was lost, or could not be read, is told again."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.db.models import Sum

from metering import aggregator, stream
from metering.lost_ends import send_again
from metering.models import Gap, Life, LifeReading, StorageReading, StreamCursor, UsageRecord
from metering.samples import State
from metering.silence import close_silent_hosts
from tests.metering.fleet import MINUTE, SECOND, START, TICK, Fleet

pytestmark = pytest.mark.django_db


def lose_newest(fleet: Fleet) -> None:
    key = stream._stream_key(fleet.host_id)
    (newest,) = stream._redis().xrevrange(key, count=1)
    stream._redis().xdel(key, newest[0])


def corrupt_newest(fleet: Fleet) -> None:
    lose_newest(fleet)
    keys = (stream._stream_key(fleet.host_id), f"metrics:sequence:{fleet.host_id}")
    stream._redis().decr(keys[1])
    stream._redis().eval(stream._APPEND, 2, *keys, b"\xffnothing", 0)


def forget_newest(fleet: Fleet) -> None:
    """Be as a Redis that was killed, and comes up without the last that it took, number and all."""
    lose_newest(fleet)
    stream._redis().decr(f"metrics:sequence:{fleet.host_id}")


def forget_everything(_: Fleet) -> None:
    stream._redis().flushdb()


@pytest.mark.parametrize("spoil", [lose_newest, corrupt_newest, forget_newest, forget_everything])
def test_a_life_whose_end_was_lost_has_its_running_time_and_a_gap(spoil: object) -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + 21 * SECOND, removed_at=START + 21 * SECOND)
    fleet.add("short", started_at=START + 20 * SECOND, ended_at=START + 21 * SECOND)
    fleet.run(20 * SECOND)
    fleet.run_without_aggregating(ticks=1, tick=TICK)
    assert callable(spoil)
    spoil(fleet)
    fleet.run(MINUTE)
    fleet.aggregate()
    for life in Life.objects.all():
        assert LifeReading.objects.get(life=life).state == State.STOPPED
        running = UsageRecord.objects.filter(life=life).aggregate(ms=Sum("running_ms"))["ms"]
        assert running == (life.ended_at - life.started_at) / SECOND * 1000  # type: ignore[operator]
        assert Gap.objects.filter(life=life, reason=Gap.Reason.ENDED_BETWEEN_READINGS).exists()
    assert StorageReading.objects.get(life__sandbox__sandbox_id="sbx").is_gone == 1
    before = list(UsageRecord.objects.order_by("pk").values())
    StreamCursor.objects.update(entry_id="0-0", sequence=0)
    fleet.aggregate()
    assert list(UsageRecord.objects.order_by("pk").values()) == before


def test_ends_are_told_by_another_where_a_worker_is_killed_before_it_told_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + 21 * SECOND, removed_at=START + 21 * SECOND)
    fleet.run(20 * SECOND)
    fleet.run_without_aggregating(ticks=1, tick=TICK)
    lose_newest(fleet)
    fleet.run_without_aggregating(ticks=1, tick=TICK)

    def be_killed(*_arguments: object, **_named: object) -> int:
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr(aggregator, "send_again", be_killed)
        with pytest.raises(OperationalError):
            fleet.aggregate()
    assert StreamCursor.objects.get().lost_batch_count == 1
    assert LifeReading.objects.get().state != State.STOPPED
    fleet.aggregate()
    assert LifeReading.objects.get().state == State.STOPPED
    assert StreamCursor.objects.get().ends_untold_since is None
    told = StreamCursor.objects.get().sequence
    fleet.aggregate()
    assert StreamCursor.objects.get().sequence == told


def test_ends_that_were_lost_before_their_host_fell_silent_are_told_again() -> None:
    fleet = Fleet()
    fleet.add("sbx", ended_at=START + 21 * SECOND, removed_at=START + 21 * SECOND)
    fleet.add("runs-on")
    fleet.run(20 * SECOND)
    fleet.run_without_aggregating(ticks=3, tick=TICK)
    forget_everything(fleet)
    # What is silent counts as collected, so that invoices do not wait for it.
    fleet.now += 60 * MINUTE
    assert close_silent_hosts(now=fleet.now) == 1
    fleet.aggregate()
    life = Life.objects.get(sandbox__sandbox_id="sbx")
    assert LifeReading.objects.get(life=life).state == State.STOPPED
    assert Gap.objects.filter(life=life, reason=Gap.Reason.ENDED_BETWEEN_READINGS).exists()
    runs_on = LifeReading.objects.get(life__sandbox__sandbox_id="runs-on")
    assert runs_on.state != State.STOPPED
    fleet.run(MINUTE)
    assert StreamCursor.objects.get().lost_batch_count == 3


def test_numbers_that_redis_forgot_are_not_given_again() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(20 * SECOND)
    folded = StreamCursor.objects.get().sequence
    fleet.run_without_aggregating(ticks=3, tick=TICK)
    for _ in range(2):
        forget_newest(fleet)
    fleet.run_without_aggregating(ticks=1, tick=TICK)
    fleet.aggregate()
    cursor = StreamCursor.objects.get()
    assert (cursor.sequence, cursor.lost_batch_count) == (folded + 4, 2)


def test_a_life_that_was_closed_in_silence_is_told_no_end() -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(20 * SECOND)
    life = Life.objects.get()
    Life.objects.update(ended_at=fleet.now)
    Gap.objects.create(
        life=life,
        meter=Gap.WHOLE_LIFE,
        start=fleet.now,
        end=fleet.now + MINUTE,
        reason=Gap.Reason.HOST_SILENT,
        recorded_at=fleet.now,
    )
    assert send_again(fleet.host_id, since=START) == 0
    Gap.objects.all().delete()
    assert send_again(fleet.host_id, since=START) == 1
