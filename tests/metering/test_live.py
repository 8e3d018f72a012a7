"""What a sandbox is doing, through the real stream and the real fold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from uuid import uuid4

import pytest
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from metering import live, stream
from metering.live import LiveReading, NoSuchSandboxError, live_sandbox, running_lives
from metering.samples import Known, State
from tests.metering.batches import ALL_KNOWN, MORNING, Host

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
MB = 2**20
QUERIES_OF_A_SANDBOX = 1
"""Its lives, each with its last reading."""


class Watched:
    """A sandbox on a host of its own."""

    def __init__(self) -> None:
        self.host = Host()
        self.account_id = self.host.account()
        self.life = self.host.start(self.account_id, "sbx", MORNING)

    def read(self, seconds: float, *, cpu_ms: int = 0, **figures: object) -> None:
        at = MORNING + seconds * SECOND
        self.host.read(self.life, at, cpu_ns=cpu_ms * 10**6, **figures)  # type: ignore[arg-type]  # told one by one

    def seen(self, seconds: float) -> LiveReading:
        now = MORNING + seconds * SECOND
        return live_sandbox(self.account_id, "sbx", now=now).reading


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def _silent_redis(settings: Settings) -> Iterator[None]:
    settings.STREAM_REDIS_URL = "unix:///nowhere/redis.sock"
    stream._looking.cache_clear()
    yield
    stream._looking.cache_clear()


def test_rates_are_of_the_time_between_the_last_two_readings(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000, network={"eth0": (0, 0), "eth1": (5, 0)}, disk_bytes=100)
    watched.read(12, cpu_ms=2000, network={"eth0": (0, 100), "eth1": (5, 0)}, disk_bytes=100)
    watched.read(
        14,
        cpu_ms=5000,
        memory_bytes=7 * MB,
        network={"eth0": (30, 600), "eth1": (15, 0)},
        disk_bytes=350,
    )
    assert watched.seen(15) == LiveReading(
        at=MORNING + 14 * SECOND,
        is_live=True,
        state="running",
        memory_bytes=7 * MB,
        memory_limit_bytes=2**30,
        cpu_limit_micro=2 * 10**6,
        span_ms=2000,
        # 3 s of a cpu in 2 s.
        cpu_percent=Fraction(150),
        network_rx_rate=Fraction(20),
        network_tx_rate=Fraction(250),
        disk_read_rate=Fraction(125),
        disk_write_rate=Fraction(250),
    )


@pytest.mark.parametrize(("after_s", "is_live"), [(0, True), (5, True), (5.001, False)])
def test_a_reading_is_live_for_five_seconds(
    watched: Watched, after_s: float, *, is_live: bool
) -> None:
    watched.read(10)
    watched.read(12, cpu_ms=1)
    seen = watched.seen(12 + after_s)
    assert (seen.is_live, seen.at) == (is_live, MORNING + 12 * SECOND)


def test_the_folded_reading_stands_before_a_single_new_one(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000, network={"eth0": (0, 40)}, disk_bytes=10)
    watched.host.fold(MORNING + 11 * SECOND)
    forget_stream(watched.host)
    watched.read(20, cpu_ms=2000, network={"eth0": (0, 140)}, disk_bytes=60)
    seen = watched.seen(21)
    assert (seen.is_live, seen.span_ms, seen.cpu_percent) == (True, 10_000, Fraction(10))
    assert (seen.network_tx_rate, seen.disk_read_rate) == (Fraction(10), Fraction(5))


def test_without_a_new_reading_the_folded_one_stands_with_its_time(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000, memory_bytes=3 * MB)
    watched.host.fold(MORNING + 11 * SECOND)
    forget_stream(watched.host)
    seen = watched.seen(60)
    assert (seen.at, seen.is_live) == (MORNING + 10 * SECOND, False)
    assert (seen.state, seen.memory_bytes, seen.memory_limit_bytes) == ("running", 3 * MB, 2**30)
    assert (seen.cpu_percent, seen.network_rx_rate, seen.span_ms) == (None, None, None)


@pytest.mark.usefixtures("_silent_redis")
def test_a_silent_redis_leaves_the_folded_reading(watched: Watched) -> None:
    watched.read(10, memory_bytes=3 * MB)
    watched.host.fold(MORNING + 11 * SECOND)
    watched.read(12, memory_bytes=9 * MB)
    seen = watched.seen(13)
    assert (seen.at, seen.is_live, seen.memory_bytes) == (MORNING + 10 * SECOND, False, 3 * MB)


def test_a_single_reading_has_no_rates(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000)
    seen = watched.seen(11)
    assert (seen.is_live, seen.memory_bytes) == (True, MB)
    assert (seen.cpu_percent, seen.span_ms) == (None, None)


def test_what_was_never_read_is_not_known(watched: Watched) -> None:
    assert watched.seen(1) == live.NEVER_READ


def test_a_counter_that_began_anew_has_no_rate(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000, disk_bytes=10)
    watched.read(12, cpu_ms=10, disk_bytes=30)
    seen = watched.seen(13)
    assert (seen.cpu_percent, seen.disk_read_rate) == (None, Fraction(10))


def test_a_figure_that_was_not_read_is_not_known(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000)
    watched.read(12, cpu_ms=2000, known=ALL_KNOWN & ~Known.MEMORY & ~Known.DISK_READ)
    seen = watched.seen(13)
    assert (seen.memory_bytes, seen.disk_read_rate) == (None, None)
    assert seen.cpu_percent == Fraction(50)


def test_another_life_of_the_same_host_changes_nothing(watched: Watched) -> None:
    other = watched.host.start(watched.account_id, "other", MORNING)
    watched.read(10, cpu_ms=1000)
    watched.read(12, cpu_ms=2000)
    watched.host.read(other, MORNING + 13 * SECOND, cpu_ns=9 * 10**9, memory_bytes=99 * MB)
    seen = watched.seen(13)
    assert (seen.cpu_percent, seen.memory_bytes) == (Fraction(50), MB)


def test_what_the_stream_says_has_stopped_is_not_live(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000)
    watched.read(12, cpu_ms=2000, state=State.STOPPED)
    seen = watched.seen(13)
    assert (seen.state, seen.is_live) == ("stopped", False)


def test_of_an_ended_sandbox_its_last_reading_stands(watched: Watched) -> None:
    watched.read(10, cpu_ms=1000, memory_bytes=5 * MB)
    watched.host.stop(watched.life, MORNING + 12 * SECOND)
    watched.host.fold(MORNING + 13 * SECOND)
    told = live_sandbox(watched.account_id, "sbx", now=MORNING + 14 * SECOND)
    assert (told.lives, told.reading.is_live, told.reading.state) == (0, False, "stopped")
    # It holds none any more.
    assert (told.reading.at, told.reading.memory_bytes) == (MORNING + 12 * SECOND, 0)


def test_lives_that_run_side_by_side_are_summed(watched: Watched) -> None:
    twin = watched.host.start(watched.account_id, "sbx", MORNING)
    for second, cpu_s in ((10, 0), (12, 2)):
        watched.read(second, cpu_ms=cpu_s * 1000)
        at = MORNING + (second - 1) * SECOND
        watched.host.read(twin, at, cpu_ns=cpu_s * 10**9, memory_bytes=2 * MB)
    told = live_sandbox(watched.account_id, "sbx", now=MORNING + 13 * SECOND)
    assert (told.lives, told.reading.is_live) == (2, True)
    assert (told.reading.at, told.reading.cpu_percent) == (MORNING + 11 * SECOND, Fraction(200))
    assert (told.reading.memory_bytes, told.reading.memory_limit_bytes) == (3 * MB, 2**31)


def test_no_more_of_a_stream_is_read_than_its_bound(watched: Watched) -> None:
    watched.read(10)
    other = watched.host.start(watched.account_id, "other", MORNING)
    for number in range(live.MOST_ENTRIES):
        watched.host.read(other, MORNING + (11 + number) * SECOND)
    assert watched.seen(11) == live.NEVER_READ


def test_many_lives_take_as_many_queries_as_one(
    watched: Watched, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for name in "abc":
        life = watched.host.start(watched.account_id, name, MORNING)
        watched.host.read(life, MORNING + 10 * SECOND, cpu_ns=0)
        watched.host.read(life, MORNING + 12 * SECOND, cpu_ns=10**9)
    now = MORNING + 13 * SECOND
    with django_assert_num_queries(QUERIES_OF_A_SANDBOX):
        live_sandbox(watched.account_id, "a", now=now)
    with django_assert_num_queries(QUERIES_OF_A_SANDBOX):
        running, count = running_lives(watched.account_id, most=10, now=now)
    assert count == 4
    assert {one.sandbox_id: one.reading.cpu_percent for one in running} == {
        "a": Fraction(50),
        "b": Fraction(50),
        "c": Fraction(50),
        "sbx": None,
    }
    assert running_lives(watched.account_id, most=2, now=now)[1] == 4


def test_another_accounts_sandbox_is_none() -> None:
    Watched()
    with pytest.raises(NoSuchSandboxError):
        live_sandbox(uuid4(), "sbx", now=MORNING)


def forget_stream(host: Host) -> None:
    """Trim what is folded, as the retention would."""
    stream._redis().delete(stream._stream_key(host.host_id))
