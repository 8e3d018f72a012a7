"""Labels of a life: kept as they were when it began, within bounds, and never at its cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from metering.api import views
from metering.docker import DockerEngine
from metering.labels import (
    MOST_LABELS,
    NAME_RULE,
    NUMBER_RULE,
    VALUE_RULE,
    LabelNameError,
    explain_left_out,
    find_fault,
    keep_labels,
    require_label_name,
)
from metering.lives import record_lives
from metering.meters import Meter
from metering.models import Life, Refusal
from metering.period import to_ms
from tests.lookalike import LookAlike
from tests.metering.fleet import SECOND, Fleet
from tests.metering.runtime import MINUTE, NOON, Runtime, text_of

MOST = {f"name-{n:02}": str(n) for n in range(MOST_LABELS)}


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("team", "search", None),
        ("n", "", None),
        ("2026", "0", None),
        ("a__b.c-d/E_f", "v", None),
        ("n" * 63, "v" * 128, None),
        ("team", "Zürich 東京 🚀 ' \" %s \\", None),
        ("", "v", NAME_RULE),
        ("n" * 64, "v", NAME_RULE),
        ("two words", "v", NAME_RULE),
        ("line\n", "v", NAME_RULE),
        ("straße", "v", NAME_RULE),
        ("nul\0", "v", NAME_RULE),
        ("team", "v" * 129, VALUE_RULE),
        ("team", "nul\0", VALUE_RULE),
        ("team", "two\nlines", VALUE_RULE),
        ("team", "\x7f", VALUE_RULE),
        ("team", "half a pair \ud800", VALUE_RULE),
        ("team", "turned \u202e round", VALUE_RULE),
    ],
)
def test_a_label_has_bounds(name: str, value: str, fault: str | None) -> None:
    assert find_fault(name, value) == fault
    kept, left_out = keep_labels({name: value})
    assert kept == ({} if fault else {name: value})
    assert left_out == ({name: fault} if fault else {})


def test_of_too_many_labels_the_first_by_name_are_kept() -> None:
    kept, left_out = keep_labels({"zebra": "1", "bad name": "1", "yak": "1"} | MOST)
    assert kept == MOST
    assert left_out == {"bad name": NAME_RULE, "yak": NUMBER_RULE, "zebra": NUMBER_RULE}


def test_what_is_left_out_is_named_and_of_many_the_first() -> None:
    one = explain_left_out({"a\0b": NAME_RULE})
    assert one == f"'a?b': {NAME_RULE}"
    many = explain_left_out({str(n) + "\0" * 99: NAME_RULE for n in range(2000)})
    assert many.endswith("; and 1,997 more")
    assert len(many) < 350


def test_a_name_that_no_label_can_have_is_refused() -> None:
    require_label_name("team")
    with pytest.raises(LabelNameError, match=r"label 'a\?b': a name is 1 to 63"):
        require_label_name("a\0b")


@pytest.mark.django_db
def test_labels_are_kept_as_they_were_when_the_life_was_recorded() -> None:
    fleet = Fleet()
    fleet.add("sbx", labels={"team": "search", "2026": ""})
    fleet.add("plain")
    fleet.run(10 * SECOND)
    first = {life.sandbox.sandbox_id: life.labels for life in Life.objects.all()}
    assert first == {"sbx": {"team": "search", "2026": ""}, "plain": {}}
    assert not Refusal.objects.exists()
    # An engine that told others later would tell of another container.
    (sandbox, _) = fleet.source.sandboxes
    container = fleet.source.inspect([sandbox.container_id])[0]
    sandbox.labels["team"] = "ads"  # type: ignore[index]
    assert record_lives(fleet.host, [container], now=fleet.now) == []
    fleet.run(10 * SECOND)
    assert Life.objects.get(sandbox__sandbox_id="sbx").labels["team"] == "search"


@pytest.mark.django_db
def test_a_life_that_only_events_tell_of_has_its_labels() -> None:
    fleet = Fleet()
    fleet.run(10 * SECOND)
    start = fleet.now + SECOND
    end = start + timedelta(milliseconds=300)
    fleet.add("brief", started_at=start, ended_at=end, removed_at=end, labels={"team": "search"})
    fleet.run(10 * SECOND)
    life = Life.objects.get()
    assert (life.started_at, life.gpu_count, life.labels) == (start, None, {"team": "search"})


@pytest.mark.django_db
def test_a_label_beyond_the_bounds_costs_only_itself_and_is_refused_by_name_once() -> None:
    fleet = Fleet()
    bad = {"two words": "v", "team": "nul\0", "long": "v" * 129}
    sandbox = fleet.add("sbx", labels={"good": "yes"} | bad)
    fleet.run(10 * SECOND)
    fleet.run(2 * MINUTE)
    assert Life.objects.get().labels == {"good": "yes"}
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]
    refusal = Refusal.objects.get()
    assert (refusal.reason, refusal.subject) == (
        Refusal.Reason.LABEL_LEFT_OUT,
        sandbox.container_id,
    )
    assert refusal.count == 1
    for part in (*bad, NAME_RULE, VALUE_RULE, "start a new container"):
        assert part in refusal.detail


@pytest.mark.django_db
def test_a_refusal_of_very_many_labels_still_says_what_to_do() -> None:
    fleet = Fleet()
    fleet.add("sbx", labels={f"{n:04}{'x' * 200}": "v" for n in range(3000)} | MOST)
    fleet.run(10 * SECOND)
    assert Life.objects.get().labels == MOST
    detail = Refusal.objects.get().detail
    assert "and 2,997 more" in detail
    assert detail.endswith("Correct them, and start a new container.")


@pytest.mark.django_db
def test_a_program_that_knows_no_labels_still_records_lives() -> None:
    fleet = Fleet()
    fleet.add("sbx", labels={"team": "search"})
    fleet.run(10 * SECOND)
    names = [
        field.column
        for field in Life._meta.concrete_fields
        if field.column and field.name not in {"id", "key", "labels"}
    ]
    columns = ", ".join(names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO metering_life (id, key, {columns}) "  # noqa: S608 - Django's own names
            f"SELECT 1, 'other', {columns} FROM metering_life"
        )
    assert Life.objects.get(pk=1).labels == {}


@pytest.mark.django_db
def test_a_containers_labels_come_with_its_inspection_and_its_events(tmp_path: Path) -> None:
    fleet = Fleet()
    # It started a while ago, so that no event is still to come.
    start = datetime.now(UTC) - 2 * MINUTE
    with LookAlike(tmp_path / "engine.sock", now_ns=lambda: to_ms(start) * 10**6) as script:
        engine = DockerEngine(script.endpoint, concurrency=8, timeout_s=5)
        labels = {"soulbox.label.team": "search", "soulbox.label.bad name": "x", "other": "1"}
        key = script.add("sbx", fleet.account_id, labels=labels)
        told = engine.events_between(start - MINUTE, start + MINUTE).seen
        containers = engine.inspect([key])
    assert {event.labels["soulbox.label.team"] for event in told} == {"search"}
    record_lives(fleet.host, containers, now=start)
    record_lives(fleet.host, containers, now=start)
    assert Life.objects.get().labels == {"team": "search"}
    refusal = Refusal.objects.get()
    assert (refusal.subject, refusal.count) == (key, 1)


@pytest.mark.django_db
def test_a_lifes_page_shows_its_labels(client: Client) -> None:
    client.force_login(User.objects.create_superuser("admin", password="x"))  # noqa: S106 - a test's
    fleet = Fleet()
    fleet.add("sbx", labels={"team": "search<b>"})
    fleet.add("plain")
    fleet.run(10 * SECOND)
    life = Life.objects.get(sandbox__sandbox_id="sbx")
    page = client.get(f"/admin/metering/life/{life.pk}/change/").content.decode()
    assert "team = search&lt;b&gt;" in page


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, db: None) -> Runtime:
    del db

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return NOON

    monkeypatch.setattr(views, "datetime", Clock)
    return Runtime()


def test_labels_that_are_sent_are_those_of_the_sample_that_registers_the_life(
    runtime: Runtime,
) -> None:
    labels = {"team": "search", "stage": ""}
    assert runtime.send(runtime.sample(labels=labels))["accepted"] == 1
    later = runtime.sample(labels={"team": "ads"}, read_at=text_of(NOON), cpu_ns=10_000)
    without = runtime.sample(life="pod-2/0", labels=None)
    assert runtime.send(later, without)["accepted"] == 2
    recorded = dict(Life.objects.values_list("key", "labels"))
    assert recorded == {"pod-1/0": labels, "pod-2/0": {}}
    runtime.aggregate()
    assert runtime.usage()[Meter.CPU] == 19_000


@pytest.mark.parametrize(
    ("labels", "field", "reason", "detail"),
    [
        ("team", "labels", "malformed", 'An object, as in {"team": "search"}.'),
        (["team"], "labels", "malformed", 'An object, as in {"team": "search"}.'),
        (
            {f"n{n}": "" for n in range(17)},
            "labels",
            "too_large",
            "There are 17 of them; at most 16 are taken.",
        ),
        (
            {"two words": "v"},
            "labels.two words",
            "malformed",
            "A name is 1 to 63 letters, digits, or _ . - /.",
        ),
        ({"nul\0": "v"}, "labels.nul?", "malformed", None),
        ({"team": None}, "labels.team", "malformed", "A value is a text."),
        ({"team": 1}, "labels.team", "malformed", "A value is a text."),
        ({"team": {"of": "x"}}, "labels.team", "malformed", "A value is a text."),
        (
            {"team": "v" * 129},
            "labels.team",
            "malformed",
            "A value is at most 128 printable characters.",
        ),
        ({"team": "\0"}, "labels.team", "malformed", None),
        ({"team": "\ud800"}, "labels.team", "malformed", None),
    ],
)
def test_a_bad_label_is_named_and_costs_the_other_samples_nothing(
    runtime: Runtime, labels: Any, field: str, reason: str, detail: str | None
) -> None:
    answer = runtime.send(runtime.sample(labels=labels), runtime.sample(life="pod-2/0"))
    assert answer["accepted"] == 1
    (rejected,) = answer["rejected"]
    assert (rejected["index"], rejected["field"], rejected["reason"]) == (0, field, reason)
    assert detail is None or rejected["detail"] == detail
    assert Refusal.objects.get().detail == f"{field}: {rejected['detail']}"


def test_a_label_by_itself_is_told_where_labels_go(runtime: Runtime) -> None:
    (rejected,) = runtime.send(runtime.sample(label="x"))["rejected"]
    assert (rejected["reason"], rejected["detail"]) == ("wrong_unit", "Send labels, by name.")
