"""Calls of the sample API at the same moment."""

from __future__ import annotations

from datetime import datetime
from itertools import count
from typing import Any

import pytest

from metering import intake
from metering.api.parsing import Said, open_sample, read_samples
from metering.meters import Meter
from metering.models import Life, LifeReading, MeteringKey, Sandbox
from tests.metering.runtime import MINUTE, NOON, Runtime, text_of
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def send(runtime: Runtime, samples: list[dict[str, Any]], *, now: datetime = NOON) -> intake.Intake:
    """What the view does, at the test's own time."""
    key = MeteringKey.objects.select_related("host", "account").get(pk=runtime.row.pk)
    read, rejected = read_samples(samples, open_sample, Said(None, 2, now))
    return intake.take_samples(key, read, rejected=rejected, now=now)


def forty_lives(runtime: Runtime) -> list[dict[str, Any]]:
    return [
        runtime.sample(
            sandbox_id=f"sbx-{number % 7}",
            life=f"pod-{number}",
            read_at=text_of(NOON - minute * MINUTE),
            cpu_ns=1000 * (10 - minute),
        )
        for number in range(40)
        for minute in (3, 2, 1)
    ]


def test_one_call_sent_by_ten_processes_at_once_is_billed_once() -> None:
    runtime = Runtime()
    samples = forty_lives(runtime)

    def send_in_another_order(number: int) -> None:
        assert send(runtime, samples[number:] + samples[:number]).rejected == []

    assert run_at_once(send_in_another_order) == [0] * WORKERS
    assert (Sandbox.objects.count(), Life.objects.count()) == (7, 40)
    assert runtime.aggregate() == 120 * WORKERS
    assert runtime.usage() == {Meter.CPU: 40 * 9000}
    assert set(LifeReading.objects.values_list("sample_count", flat=True)) == {3}


def test_control_without_a_key_of_the_life_each_process_is_billed() -> None:
    runtime = Runtime()
    samples = forty_lives(runtime)

    def send_as_if_new(number: int) -> None:
        fresh = (f"{number}-{sequence}" for sequence in count())
        send(runtime, [sample | {"life": next(fresh)} for sample in samples[::3]])

    assert run_at_once(send_as_if_new) == [0] * WORKERS
    runtime.aggregate()
    assert runtime.usage()[Meter.CPU] > 40 * 9000


def claim_one_key(number: int, runtime: Runtime) -> None:
    send(runtime, [runtime.sample(sandbox_id=f"sbx-{number}", cpu_ns=1000 + number)])


def test_a_life_key_claimed_for_ten_sandboxes_at_once_is_of_one() -> None:
    runtime = Runtime()
    assert run_at_once(lambda number: claim_one_key(number, runtime)) == [0] * WORKERS
    life = Life.objects.get()
    assert runtime.aggregate() == 1
    # The figures are those of the sandbox that has the life, not of another.
    assert runtime.usage() == {Meter.CPU: 1000 + int(life.sandbox.sandbox_id.removeprefix("sbx-"))}


def test_control_without_a_second_look_at_the_life_others_figures_get_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = Runtime()
    monkeypatch.setattr(intake, "_is_of_its_life", lambda *_: True)
    assert run_at_once(lambda number: claim_one_key(number, runtime)) == [0] * WORKERS
    assert Life.objects.count() == 1
    assert runtime.aggregate() > 1


def test_refusals_met_at_once_are_all_counted() -> None:
    runtime = Runtime()
    bad = [runtime.sample(life=f"pod-{number}", cpu_ns=-1) for number in range(20)]

    def send_in_another_order(number: int) -> None:
        send(runtime, bad[number:] + bad[:number])

    assert run_at_once(send_in_another_order) == [0] * WORKERS
    assert set(runtime.host.refusals.values_list("count", flat=True)) == {WORKERS}
