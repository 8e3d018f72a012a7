from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from uuid import UUID, uuid4

from billing.webhooks.pauses import PAUSES, pause_after

ONE = UUID(int=1)


def test_pauses_grow_to_eight_tries_in_three_days() -> None:
    pauses = [pause for n in range(1, 20) if (pause := pause_after(n, delivery_id=ONE))]
    assert len(pauses) == 7
    assert all(one < other for one, other in pairwise(pauses))
    assert timedelta(days=2) < sum(pauses, timedelta()) <= timedelta(days=3)
    assert sum(PAUSES, timedelta()) <= timedelta(days=3)


def test_what_failed_together_does_not_come_back_together() -> None:
    pauses = {pause_after(1, delivery_id=uuid4()) for _ in range(200)}
    assert len(pauses) > 5
    assert all(pause and PAUSES[0] * 85 / 100 <= pause <= PAUSES[0] for pause in pauses)
    assert pause_after(3, delivery_id=ONE) == pause_after(3, delivery_id=ONE)
