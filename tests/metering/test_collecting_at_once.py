"""The call that asks for a last reading at once."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from metering import stream
from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.models import Refusal
from metering.services import register_host
from metering.source import SourceError
from metering.stream import StreamUnavailableError
from tests.metering.runtime import MINUTE, Runtime

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("it_is_noon")]


def test_a_last_reading_is_taken_at_once() -> None:
    runtime = Runtime(scopes=("collect",), of_one_account=True)
    before = datetime.now(UTC) - MINUTE
    host = register_host(
        host_id=uuid4(),
        name="simulated",
        endpoint=f"simulator:?account={runtime.account_id}",
        now=before,
    )
    collect_host(host.pk, now=datetime.now(UTC))
    entries = len(list(stream.read_after(host.pk, "0-0", limit=9)))
    answer = runtime.collect("simulated-2")
    assert (answer.status_code, answer.json()) == (200, {"read": 1})
    assert len(list(stream.read_after(host.pk, "0-0", limit=9))) == entries + 1
    aggregate_host(host.pk, now=datetime.now(UTC))
    assert not Refusal.objects.exists()


def test_only_sandboxes_of_the_keys_account_are_found() -> None:
    runtime = Runtime(scopes=("samples", "collect"), of_one_account=True)
    runtime.send(runtime.sample())
    other = runtime.open_account()
    # It is sent, so there is nobody to ask.
    assert runtime.collect("sbx-1").json() == {"read": 0}
    assert runtime.collect("sbx-1", runtime.account_id).status_code == 200
    for sandbox_id, account_id in (("sbx-1", other), ("sbx-2", None)):
        assert runtime.collect(sandbox_id, account_id).status_code == 404
    assert runtime.collect("sbx-1%00").json()["code"] == "nul_byte"


def test_a_key_of_every_account_says_whose_sandbox_it_is() -> None:
    runtime = Runtime(scopes=("samples", "collect"))
    runtime.send(runtime.sample())
    assert runtime.collect("sbx-1", runtime.account_id).json() == {"read": 0}
    assert runtime.collect("sbx-1").status_code == 400
    assert runtime.collect("sbx-1", "nobody").status_code == 400
    assert runtime.collect("sbx-1", uuid4()).status_code == 404


@pytest.mark.parametrize(
    "error", [SourceError("The engine does not answer."), StreamUnavailableError("Redis is full.")]
)
def test_an_engine_that_does_not_answer_is_to_be_asked_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(scopes=("samples", "collect"), of_one_account=True)
    runtime.send(runtime.sample())

    def fail(account_id: UUID, sandbox_id: str, *, now: datetime) -> int:
        del account_id, sandbox_id, now
        raise error

    monkeypatch.setattr("metering.collector.collect_sandbox", fail)
    answer = runtime.collect("sbx-1")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer.json()["detail"] == str(error)
