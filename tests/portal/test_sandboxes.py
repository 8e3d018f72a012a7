from __future__ import annotations

from datetime import timedelta

import pytest

from billing import services
from tests.metering.batches import MORNING, Host
from tests.portal.conftest import SetClock
from tests.portal.members import member_of, words_of

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
KB = 2**10


def test_what_runs_is_shown_as_it_is_now(set_clock: SetClock) -> None:
    account = services.open_account(name="Ada", now=MORNING - timedelta(days=1))
    host = Host()
    busy = host.start(account.pk, "busy", MORNING)
    host.start(account.pk, "new", MORNING)
    host.read(busy, MORNING + 10 * SECOND, cpu_ns=0, network={"eth0": (0, 0)})
    host.read(
        busy,
        MORNING + 12 * SECOND,
        cpu_ns=3 * 10**9,
        memory_bytes=7 * KB**2,
        network={"eth0": (4 * KB, 3 * KB**2)},
    )
    other = services.open_account(name="Eve", now=MORNING - timedelta(days=1))
    host.start(other.pk, "theirs", MORNING)
    client = member_of(account)
    set_clock(MORNING + 13 * SECOND)
    for path in ("/sandboxes", "/sandboxes/live"):
        words = words_of(client.get(path))
        assert "2 running" in words
        for figure in ("150 %", "7 MB", "1 GB", "2 kB/s", "1.5 MB/s", "Live", "Not read yet"):
            assert f">{figure}<" in words, figure
        assert "theirs" not in words
    set_clock(MORNING + 60 * SECOND)
    assert ">Live<" not in words_of(client.get("/sandboxes"))
