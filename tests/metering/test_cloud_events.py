"""Samples that are sent as CloudEvents."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from metering import stream
from metering.api.parsing import EVENT_TYPE
from metering.samples import unpack
from tests.metering.runtime import EVENTS, MINUTE, NOON, Runtime, text_of
from tests.metering.sent_life import CLOSED_FORM, a_life_of_ten_minutes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


def an_event(sample: object, **attributes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/clusters/one",
        "type": EVENT_TYPE,
        "data": sample,
        "datacontenttype": "application/json",
        "someextension": 5,
    }
    return {name: value for name, value in (event | attributes).items() if value is not ...}


def test_a_batch_of_cloud_events_is_taken() -> None:
    runtime = Runtime()
    events = [an_event(sample) for sample in a_life_of_ten_minutes(runtime)]
    answer = runtime.post(events, media_type=EVENTS)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 10)
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def test_one_cloud_event_is_taken_and_its_time_stands_in() -> None:
    runtime = Runtime()
    sample = runtime.sample(read_at=...)
    event = an_event(sample, time=text_of(NOON - MINUTE))
    answer = runtime.post(event, media_type="application/cloudevents+json; charset=utf-8")
    assert answer.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    # A time of the sample's own counts before the event's.
    both = an_event(runtime.sample(), time=text_of(NOON - 5 * MINUTE))
    runtime.post([both], media_type=EVENTS)
    times = [
        int(unpack(entry.packed).samples["read_ms"][0])
        for entry in stream.read_after(runtime.host.pk, "0-0", limit=9)
    ]
    assert times == [int((NOON - MINUTE).timestamp()) * 1000] * 2


@pytest.mark.parametrize(
    ("attributes", "field", "reason"),
    [
        ({"specversion": "0.3"}, "specversion", "malformed"),
        ({"specversion": ...}, "specversion", "missing"),
        ({"type": "another"}, "type", "malformed"),
        ({"type": ...}, "type", "missing"),
        ({"id": ""}, "id", "missing"),
        ({"source": ...}, "source", "missing"),
        ({"data": ...}, "data", "missing"),
        ({"data": 5}, "data", "malformed"),
        ({"data": {"cpu_ns": -1}}, "account_id", "missing"),
        ({"time": "noon"}, "time", "malformed"),
        ({"time": "2026-11-02T11:59:00"}, "time", "no_time_zone"),
        ({}, "read_at", "missing"),
    ],
)
def test_a_bad_event_is_named_and_costs_its_neighbours_nothing(
    attributes: dict[str, Any], field: str, reason: str
) -> None:
    runtime = Runtime()
    bad = an_event(runtime.sample(read_at=...), **attributes)
    answer = runtime.post([bad, an_event(runtime.sample())], media_type=EVENTS).json()
    assert answer["accepted"] == 1
    assert [(r["index"], r["field"], r["reason"]) for r in answer["rejected"]] == [
        (0, field, reason)
    ]


def test_a_list_is_no_json_call_and_an_object_no_batch() -> None:
    runtime = Runtime()
    assert runtime.post([an_event(runtime.sample())]).status_code == 400
    assert runtime.post(an_event(runtime.sample()), media_type=EVENTS).status_code == 400
