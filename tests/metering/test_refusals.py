"""What is not metered is refused by name, and costs its neighbours nothing."""

from __future__ import annotations

import numpy as np
import pytest

from metering import stream
from metering.meters import Meter
from metering.models import (
    Life,
    Refusal,
)
from metering.period import to_ms
from metering.samples import SAMPLE, Batch, Known
from metering.services import register_account
from tests.metering.fleet import MINUTE, SECOND, TICK, Fleet

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"account_id": ""}, Refusal.Reason.ACCOUNT_MISSING),
        ({"account_id": "not-a-uuid"}, Refusal.Reason.ACCOUNT_MALFORMED),
        ({"account_id": "5f4d8e9c-0000-4000-8000-000000000000"}, Refusal.Reason.ACCOUNT_UNKNOWN),
        ({"label": "-bad"}, Refusal.Reason.SANDBOX_MALFORMED),
        ({"label": "x" * 129}, Refusal.Reason.SANDBOX_MALFORMED),
    ],
)
def test_a_sandbox_with_bad_labels_is_refused_by_name_and_its_neighbour_is_metered(
    labels: dict[str, str], reason: Refusal.Reason
) -> None:
    fleet = Fleet()
    fleet.add("good")
    fleet.add(labels.pop("label", "bad"), **labels)
    fleet.run(10 * SECOND)
    refusal = Refusal.objects.get()
    assert refusal.reason == reason
    assert "soulbox." in refusal.detail
    assert fleet.usage()[Meter.CPU] == 500_001 * 10_000


def test_a_refused_sandbox_is_metered_once_its_account_is_open() -> None:
    fleet = Fleet()
    other = Fleet()
    fleet.add("early", account_id=str(fleet.host_id))
    fleet.run(10 * SECOND)
    register_account(account_id=fleet.host_id, time_zone="UTC", registered_at=fleet.now)
    fleet.run(2 * MINUTE)
    assert Life.objects.get().sandbox.account_id == fleet.host_id
    assert other.usage() == {}


def a_sample(**figures: int) -> np.void:
    row = np.zeros(1, SAMPLE)
    row["state"] = 1
    row["known"] = int(Known.CPU | Known.MEMORY)
    for name, value in figures.items():
        row[name] = value
    sample: np.void = row[0]
    return sample


@pytest.mark.parametrize(
    ("figures", "reason", "complaint"),
    [
        ({"cpu_ns": -1}, Refusal.Reason.SAMPLE_UNBELIEVABLE, "negative"),
        ({"memory_bytes": 2**43 + 1}, Refusal.Reason.SAMPLE_UNBELIEVABLE, "8 TiB"),
        ({"read_ms": 0}, Refusal.Reason.SAMPLE_UNBELIEVABLE, "35 days"),
        ({"read_ms": 2**60}, Refusal.Reason.SAMPLE_UNBELIEVABLE, "ahead"),
        ({"known": 2**9}, Refusal.Reason.SAMPLE_UNBELIEVABLE, "without a name"),
        ({"life": 1}, Refusal.Reason.LIFE_UNKNOWN, "not recorded"),
    ],
)
def test_a_bad_sample_is_refused_by_name_and_costs_its_batch_nothing(
    figures: dict[str, int], reason: Refusal.Reason, complaint: str
) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    fleet.run(10 * SECOND)
    life = Life.objects.get().pk
    now_ms = to_ms(fleet.now)
    good = a_sample(life=life, read_ms=now_ms + 2000, cpu_ns=500_001 * 12_000, memory_bytes=5)
    bad = a_sample(**({"life": life, "read_ms": now_ms + 1000} | figures))
    stream.append(fleet.host_id, Batch(now_ms, 2000, np.array([bad, good, bad], SAMPLE)))
    fleet.aggregate()
    refusal = Refusal.objects.get()
    assert (refusal.reason, refusal.count) == (reason, 2)
    assert complaint in refusal.detail
    assert fleet.usage()[Meter.CPU] == 500_001 * 12_000


def test_an_unreadable_batch_is_refused_and_the_next_one_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.add("sbx")
    with monkeypatch.context() as patched:
        patched.setattr("metering.stream.pack", lambda _batch: b"\x09 of a later version")
        fleet.run(TICK)
    fleet.run(TICK)
    refusal = Refusal.objects.get()
    assert refusal.reason == Refusal.Reason.BATCH_UNREADABLE
    assert "version is 09" in refusal.detail
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]
