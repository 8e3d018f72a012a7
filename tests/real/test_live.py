"""What a customer sees of a real container that is busy, from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from metering.collector import collect_host
from tests.api.calling import Api
from tests.processes import wait_until
from tests.real.conftest import Sandboxes, aggregate_until_done

pytestmark = pytest.mark.real

MIB = 2**20
HELD = 24 * MIB
BUSY = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24; while :; do :; done"


@pytest.fixture
def sandboxes(account_id: UUID) -> Iterator[Sandboxes]:
    sandboxes = Sandboxes(account_id)
    yield sandboxes
    sandboxes.remove()


def test_a_busy_container_is_seen_as_it_is_until_it_ends(
    sandboxes: Sandboxes, host_id: UUID, account_id: UUID
) -> None:
    api = Api.by_key(account_id)
    container_id = sandboxes.start("live", BUSY, "--cpus=0.5", "--memory=64m")
    collect_host(host_id, now=datetime.now(UTC))
    seen: list[dict[str, Any]] = []

    def holds_its_memory() -> bool:
        # Nothing collects here by itself: each look has it read.
        assert api.post("sandboxes/live/collect").json() == {"read": 1}
        seen.append(api.get("sandboxes/live/usage").json())
        return bool(seen[-1]["memory_bytes"] >= HELD and seen[-1]["cpu_percent"])

    wait_until(holds_its_memory, seconds=30, what="the container to hold its memory")
    told = seen[-1]
    assert (told["is_live"], told["state"], told["lives"]) == (True, "running", 1)
    assert (told["cpu_limit"], told["memory_limit_bytes"]) == ("0.5", 64 * MIB)
    assert told["memory_bytes"] <= 64 * MIB
    # It wants a whole cpu and is held to half of one; the kernel's quota is kept by periods of a
    # tenth of a second, of which a short time between two readings may hold one more.
    period_share = Decimal(5) / told["rates_over_ms"] * 1000
    assert 0 < Decimal(told["cpu_percent"]) <= 50 + period_share + 1
    [listed] = api.get("sandboxes?state=running").json()["results"]
    assert (listed["sandbox_id"], listed["newest"]["memory_limit_bytes"]) == ("live", 64 * MIB)

    sandboxes.docker("rm", "-f", container_id)
    collect_host(host_id, now=datetime.now(UTC))
    aggregate_until_done(host_id)
    told = api.get("sandboxes/live/usage").json()
    assert (told["is_live"], told["state"], told["lives"]) == (False, "stopped", 0)
    assert told["read_at"] is not None
    assert api.get("sandboxes?state=running").json()["results"] == []
    assert api.post("sandboxes/live/collect").json() == {"read": 0}
