"""A running installation whose servers are killed, stopped, filled up and meddled with.

Of each: usage is what the simulator's rates make it, and no credit that was told to be given is
gone, half there or there twice. `make outages` has servers stand still for half a minute, and ends
Redis a dozen times each way.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis

from soulbox.embedded import APPLICATION_ROLE, Embedded
from soulbox.keeper import SUPERUSER
from tests.faults.installation import (
    DISK,
    RECOVERED_WITHIN_S,
    Installation,
    can_mount,
    mount,
    now_ms,
)
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(900)

STANDS_STILL_S = float(os.environ.get("OUTAGE_S", "8"))
REDIS_ENDS = int(os.environ.get("REDIS_ENDS", "1"))
# A fleet's gauges are held for five intervals of two seconds: what is lost has to be more.
MEDDLED_FOR_S = 20
# Between readings, so that the next one is after it.
SOON_MS = 3000
CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename <> 'postgres'
"""
HOLD_CURSOR = "SELECT entry_id FROM metering_streamcursor WHERE host_id = %s FOR UPDATE"
ROOM_BYTES = 4 * 2**20
NO_ROOM = "No space left on device"


@pytest.fixture(autouse=True)
def _all_is_well_before_and_after(installation: Installation) -> Iterator[None]:
    installation.wait_for_readings_after(now_ms() - 60_000)
    yield
    # On a machine that is busy it takes its time.
    state = installation.wait_for_readings_after(now_ms() + SOON_MS, seconds=2 * RECOVERED_WITHIN_S)
    installation.assert_nothing_is_lost_or_counted_twice(state)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def redis_pid(installation: Installation) -> int:
    with installation.redis() as client:
        return int(client.info()["process_id"])


def wait_for_another_redis(installation: Installation, pid: int) -> None:
    def is_there() -> bool:
        with suppress(redis.RedisError):
            return redis_pid(installation) != pid
        return False

    wait_until(is_there, seconds=RECOVERED_WITHIN_S, what="another Redis")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_a_postgresql_that_ends_at_once_is_given_back_and_metering_goes_on(
    installation: Installation, number: signal.Signals
) -> None:
    # SIGQUIT is its immediate stop.
    before = installation.postgresql_pid
    os.kill(before, number)

    def is_another() -> bool:
        # The file that has its number goes with it.
        with suppress(FileNotFoundError, IndexError):
            return installation.postgresql_pid != before
        return False

    wait_until(is_another, seconds=RECOVERED_WITHIN_S, what="another PostgreSQL")


def test_a_postgresql_that_stands_still_for_a_while_costs_nothing(
    installation: Installation,
) -> None:
    postmaster = installation.postgresql_pid
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    with stopped(postmaster, *map(int, children)):
        time.sleep(STANDS_STILL_S)


def test_while_postgresql_has_no_connection_left_work_waits_for_one(
    installation: Installation,
) -> None:
    superuser = Embedded(installation.home).database_url(SUPERUSER)
    with ExitStack() as taken:
        first = taken.enter_context(psycopg.connect(superuser, autocommit=True))
        # Each that was at work finds, when it asks anew, that there is none.
        while first.execute(CUT_OFF).fetchall() or can_connect(installation):
            with suppress(psycopg.OperationalError):
                taken.enter_context(psycopg.connect(superuser))
        told = installation.told()
        time.sleep(STANDS_STILL_S)
        assert installation.told() <= told + 1
    log = (installation.home / "log" / "postgresql.log").read_text()
    # The last few are kept for superusers.
    assert "too many clients" in log or "connection slots are reserved" in log


def can_connect(installation: Installation) -> bool:
    try:
        installation.sql("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_a_full_disk_costs_nothing_and_work_goes_on_when_there_is_room(
    installation: Installation,
) -> None:
    if not can_mount():
        assert not os.environ.get("CI"), "CI runs as root"
        pytest.skip("only root can mount a disk that is full")
    with full(installation.home.parent):
        log = installation.home / "log" / "postgresql.log"

        def is_told() -> bool:
            # What comes next is in another file, for which there is no room.
            with suppress(psycopg.Error):
                installation.sql("SELECT pg_switch_wal()", role=SUPERUSER)
            return NO_ROOM in log.read_text()

        wait_until(is_told, seconds=RECOVERED_WITHIN_S, what="PostgreSQL to find no room")
        time.sleep(STANDS_STILL_S)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no room on a disk, which is one of its own."""
    used = shutil.disk_usage(disk).used
    mount("-o", f"remount,size={used + ROOM_BYTES}", str(disk))
    ballast = disk / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        mount("-o", f"remount,size={DISK}", str(disk))
        ballast.unlink(missing_ok=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_redis_that_ends_is_given_back_and_metering_goes_on(
    installation: Installation, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed_s = []
    for _ in range(REDIS_ENDS):
        pid = redis_pid(installation)
        ended_ms = now_ms()
        os.kill(pid, number)
        wait_for_another_redis(installation, pid)
        # Collected, folded, and another task taken: the worker hears again.
        installation.wait_for_readings_after(ended_ms)
        installation.wait_for_a_song()
        resumed_s.append((now_ms() - ended_ms) / 1000)
    with capsys.disabled():
        print(f"\n{number.name}: all goes on after {sorted(resumed_s)} s")  # noqa: T201 - a figure


def test_a_redis_that_stands_still_for_a_while_costs_nothing(installation: Installation) -> None:
    with stopped(redis_pid(installation)):
        time.sleep(STANDS_STILL_S)


def test_a_redis_whose_file_ends_in_the_middle_of_an_entry_comes_up_without_it(
    installation: Installation,
) -> None:
    with installation.redis() as client:
        pid = int(client.info()["process_id"])
    (file,) = (installation.home / "redis").rglob("appendonly.aof")
    os.kill(pid, signal.SIGKILL)
    # As a machine leaves it that loses its power.
    with file.open("r+b") as it:
        it.truncate(file.stat().st_size - 3)
    wait_for_another_redis(installation, pid)
    log = (installation.home / "log" / "redis.log").read_text()
    assert "truncat" in log.lower()


def test_a_redis_that_lost_all_its_data_costs_no_counter_and_says_so(
    installation: Installation,
) -> None:
    before = installation.ask("state")
    # What is folded already is not lost, so one batch at least is not.
    with unfolded(installation), installation.redis() as client:
        # Streams, numbers of batches, tasks and where they are sent.
        client.flushall()
    state = installation.wait_for_readings_after(now_ms() + SOON_MS)
    assert state["lost"] > before["lost"]


@contextmanager
def unfolded(installation: Installation) -> Iterator[None]:
    """Keep folding off the host's stream, in which there is something to fold."""
    url = Embedded(installation.home).database_url(APPLICATION_ROLE)
    with psycopg.connect(url, connect_timeout=5) as connection, installation.redis(1) as client:
        ((folded,),) = connection.execute(HOLD_CURSOR, [installation.host_id])

        def is_more() -> bool:
            info = client.xinfo_stream(stream_of(installation))
            return bool(info["last-generated-id"].decode() != folded)

        wait_until(is_more, seconds=RECOVERED_WITHIN_S, what="another batch in the stream")
        yield


def stream_of(installation: Installation) -> str:
    return f"metrics:stream:{installation.host_id}"


def test_what_an_operator_takes_from_a_stream_is_a_gap_that_says_so(
    installation: Installation,
) -> None:
    before = installation.ask("state")
    key = stream_of(installation)
    until = time.monotonic() + MEDDLED_FOR_S
    with installation.redis(1) as client:
        while time.monotonic() < until:
            client.xtrim(key, maxlen=0, approximate=False)
            time.sleep(0.005)
            client.pexpire(key, 1)
            time.sleep(0.005)
            # Nobody reads by one, so that none can be destroyed.
            assert not client.exists(key) or client.xinfo_groups(key) == []
    state = installation.wait_for_readings_after(now_ms() + SOON_MS)
    assert state["lost"] > before["lost"]
    assert state["gaps"] > before["gaps"]
    told = installation.python("manage.py", "metering_status")
    assert f"{state['lost']} batches lost" in told
    assert "batches lost from stream" in installation.log("worker")


def test_a_full_redis_is_seen_and_metering_goes_on_when_there_is_room(
    installation: Installation,
) -> None:
    wait_until(
        lambda: installation.ask("state")["state"] == "metered", seconds=30, what="a good start"
    )
    with installation.redis() as client:
        client.config_set("maxmemory", "1mb")
        wait_until(
            lambda: installation.ask("state")["state"] != "metered",
            seconds=RECOVERED_WITHIN_S,
            what="the full Redis to show in the host's state",
        )
        client.config_set("maxmemory", "0")
    state = installation.wait_for_readings_after(now_ms() + SOON_MS)
    assert state["state"] == "metered"
    assert "used memory > 'maxmemory'" in installation.log("beat") + installation.log("worker")
