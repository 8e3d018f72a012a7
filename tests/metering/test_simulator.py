from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metering.meters import Meter
from metering.period import Period
from metering.simulator import fleet_of
from metering.source import SourceError

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
MINUTE = Period(NOON, NOON + timedelta(minutes=1))
ONE, OTHER = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))


def test_a_fleet_has_four_sandboxes_of_each_account_unless_it_says_so() -> None:
    fleet = fleet_of(f"simulator:?account={ONE}&account={OTHER}", started_at=NOON)
    assert [(one.account_id, one.sandbox_id) for one in fleet.sandboxes] == [
        (account, f"simulated-{number}") for account in (ONE, OTHER) for number in (1, 2, 3, 4)
    ]


def test_a_fleet_has_as_many_sandboxes_as_it_says_of_four_sizes_in_turn() -> None:
    fleet = fleet_of(f"simulator:?account={ONE}&sandboxes=6", started_at=NOON)
    used = [one.usage(MINUTE)[Meter.CPU] // (60 * 250_000_000) for one in fleet.sandboxes]
    assert used == [1, 2, 3, 4, 1, 2]
    assert len({one.container_id for one in fleet.sandboxes}) == 6


@pytest.mark.parametrize("count", ["0", "-1", "many", "10001"])
def test_a_fleet_of_no_sensible_number_is_refused(count: str) -> None:
    with pytest.raises(SourceError, match="from 1 to 10,000"):
        fleet_of(f"simulator:?account={ONE}&sandboxes={count}", started_at=NOON)
