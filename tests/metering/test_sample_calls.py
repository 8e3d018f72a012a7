"""The call that samples come in: its limits, its key, its answers, its document."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from pytest_django.live_server_helper import LiveServer
from rest_framework.test import APIClient

from metering import stream
from metering.api.parsing import FIELDS
from metering.meters import Meter
from metering.models import (
    AccountRegistration,
    Host,
    Life,
    MeteringKey,
    Refusal,
    Sandbox,
)
from metering.sent import Fault
from metering.stream import StreamUnavailableError
from tests.metering.runtime import MINUTE, PATH, SECOND, Runtime, text_of
from tests.metering.sent_life import CLOSED_FORM, a_life_of_ten_minutes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


def test_a_call_of_a_thousand_samples_is_taken_and_one_of_more_is_not() -> None:
    runtime = Runtime()
    samples = [runtime.sample(sandbox_id=f"sbx-{n}", life=f"pod-{n}") for n in range(1001)]
    answer = runtime.post({"samples": samples})
    assert answer.status_code == 413
    assert "at most 1000" in answer.json()["detail"]
    assert not Life.objects.exists()
    for _ in range(2):
        assert runtime.send(*samples[:1000])["accepted"] == 1000
    runtime.aggregate()
    assert runtime.usage() == {Meter.CPU: 9_000_000}
    assert Sandbox.objects.count() == 1000


def test_a_thousand_bad_samples_are_counted() -> None:
    runtime = Runtime()
    samples = [runtime.sample(life=f"pod-{n}", cpu_ns=-1) for n in range(1000)]
    assert len(runtime.send(*samples)["rejected"]) == 1000
    assert Refusal.objects.count() == 1000


def test_a_body_over_its_limit_is_refused_with_the_limit() -> None:
    runtime = Runtime()
    answer = runtime.post(b'{"samples": [' + b" " * 2**20 + b"]}")
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"5",
        b"[]",
        b"{}",
        b'{"samples": {}}',
        b'{"samples": []}',
        b'{"samples": [{}], "interval_s": 5}',
    ],
)
def test_a_body_that_is_no_call_is_a_bad_request(body: bytes) -> None:
    answer = Runtime().post(body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data"])
def test_another_content_type_is_refused(media_type: str) -> None:
    runtime = Runtime()
    body = {"samples": [runtime.sample()]}
    assert runtime.post(body, media_type=media_type).status_code == 415


def test_without_a_metering_key_nothing_is_taken() -> None:
    runtime = Runtime()
    key, body = runtime.key, {"samples": [runtime.sample()]}
    for runtime.key in ("", "nonsense", key[:-1], "sbx_live_nonsense", "\xff"):
        answer = runtime.post(body)
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"] == "Bearer"
    assert APIClient().post(PATH, body, format="json").status_code == 401
    assert not Life.objects.exists()


def test_a_key_does_what_its_scopes_say() -> None:
    sends, collects = Runtime(), Runtime(scopes=("collect",))
    answer = collects.post({"samples": [collects.sample()]})
    assert answer.status_code == 403
    assert "samples" in answer.json()["detail"]
    assert sends.collect("sbx-1").status_code == 403


def test_a_host_that_is_not_active_takes_no_samples() -> None:
    runtime = Runtime()
    Host.objects.update(is_active=False)
    answer = runtime.post({"samples": [runtime.sample()]})
    assert answer.status_code == 403
    assert "not active" in answer.json()["detail"]


def test_without_the_stream_the_call_is_to_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    samples = a_life_of_ten_minutes(runtime)

    def refuse(*_: object, **_named: object) -> None:
        raise StreamUnavailableError("Redis did not take the batch: it is full")

    with monkeypatch.context() as patched:
        patched.setattr(stream, "append", refuse)
        answer = runtime.post({"samples": samples})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert Life.objects.get().ended_at is None
    assert runtime.send(*samples)["accepted"] == 10
    runtime.aggregate()
    assert runtime.usage() == CLOSED_FORM


def test_what_is_counted_adds_up_to_the_call() -> None:
    runtime = Runtime()
    samples = [runtime.sample(), runtime.sample(), runtime.sample(cpu_ns=-1), runtime.sample(x=1)]
    answer = runtime.send(*samples)
    assert answer["accepted"] + answer["duplicates"] + len(answer["rejected"]) == len(samples)


@pytest.mark.django_db(transaction=True)
def test_a_runtime_sends_over_a_real_connection(live_server: LiveServer) -> None:
    runtime = Runtime()
    now = datetime.now(UTC)
    sample = runtime.sample(started_at=text_of(now - MINUTE), read_at=text_of(now))
    Host.objects.update(registered_at=now - timedelta(hours=1))
    AccountRegistration.objects.update(registered_at=now - timedelta(hours=1))
    request = urllib.request.Request(  # noqa: S310 - to ourselves
        f"{live_server.url}{PATH}",
        data=json.dumps({"samples": [sample]}).encode(),
        headers={
            "Authorization": f"Bearer {runtime.key}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - to ourselves
        assert answer.status == 200
        assert json.load(answer)["accepted"] == 1
    assert runtime.aggregate(now=now + SECOND) == 1


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_nothing_else_can_be_asked(method: str) -> None:
    runtime = Runtime(scopes=("samples", "collect"))
    client = APIClient(headers={"Authorization": f"Bearer {runtime.key}"})
    for path in (PATH, "/api/v1/metering/sandboxes/sbx-1/collect"):
        assert getattr(client, method)(path).status_code == 405


def test_the_openapi_document_has_every_field_and_answer() -> None:
    document = StringIO()
    call_command("spectacular", "--validate", "--format=openapi-json", stdout=document)
    schema = json.loads(document.getvalue())
    parts = schema["components"]["schemas"]
    assert set(parts["Sample"]["properties"]) == set(FIELDS)
    operation = schema["paths"]["/api/v1/metering/samples"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "application/json",
        "application/cloudevents-batch+json",
        "application/cloudevents+json",
    }
    assert {"200", "400", "401", "403", "413", "415", "422", "503"} <= set(operation["responses"])
    in_part = operation["responses"]["422"]["content"]["application/json"]["schema"]
    assert in_part == {"$ref": "#/components/schemas/Intake"}
    assert operation["security"] == [{"meteringKey": []}]
    assert "/api/v1/metering/sandboxes/{sandbox_id}/collect" in schema["paths"]


def test_the_page_names_every_field_and_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sample-api.md").read_text()
    for name in (*FIELDS, *Fault, *MeteringKey.Scope.values):
        assert f"`{name}`" in page
