"""The cut document is strict, and a wrong answer of the server's own is caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from soulbox.local_stripe import document
from soulbox.local_stripe.clock import Clock
from soulbox.local_stripe.document import Document, DocumentError, strict
from soulbox.local_stripe.operations import OPERATIONS
from soulbox.local_stripe.server import LocalStripe
from soulbox.local_stripe.state import State
from soulbox.local_stripe.world import Call, World, served
from tests.soulbox.local_stripe.conftest import CACHE


@pytest.fixture(scope="module")
def cut() -> Document:
    return document.load(OPERATIONS, cache=CACHE)


@pytest.fixture
def server(cut: Document) -> LocalStripe:
    return LocalStripe(cut, World(cut, State(), Clock()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"$ref": "#/x", "nullable": True}, {"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}),
        (
            {"anyOf": [{"type": "string"}], "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "description": "x"},
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "additionalProperties": False,
            },
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "maxLength": 5}},
            {"type": "object", "additionalProperties": {"type": "string", "maxLength": 5}},
        ),
    ],
)
def test_a_schema_allows_nothing_undeclared(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert strict(given) == expected


def test_the_cut_document_is_kept_and_read_again(cut: Document, tmp_path: Path) -> None:
    names = ["GetBalance", "GetInvoicesInvoice"]
    first = document.load(names, cache=tmp_path)
    [kept] = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    again = document.load(names, cache=tmp_path)
    assert kept.stat().st_mtime_ns == written
    assert set(again.operations) == set(first.operations) == set(names)
    assert again.version == cut.version == "2026-05-27.dahlia"


def test_an_operation_that_stripe_lacks_cannot_be_served() -> None:
    with pytest.raises(DocumentError, match="GetNothing"):
        document.cut({"paths": {}, "components": {"schemas": {}}}, ["GetNothing"])


def test_a_word_in_a_path_wins_over_an_id(cut: Document) -> None:
    found = cut.route("GET", "/v1/customers/search")
    assert found is not None
    assert found[0].name == "GetCustomersSearch"
    found = cut.route("GET", "/v1/customers/cus_1")
    assert found is not None
    assert (found[0].name, found[1]) == ("GetCustomersCustomer", {"customer": "cus_1"})


def answer_with(
    server: LocalStripe, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> tuple[int, str]:
    """Return what the server answers when a handler's object has these changes."""
    right = OPERATIONS["PostCustomers"].answer

    def wrong(call: Call) -> dict[str, Any]:
        return {**right(call), **changes}

    monkeypatch.setitem(OPERATIONS, "PostCustomers", served(wrong))
    operation = server.document.operations["PostCustomers"]
    return server._outcome(Call(server.world, operation, {}, {}), "req_1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"emial": None}, "emial"),
        ({"balance": "0"}, "balance"),
        ({"object": "client"}, "object"),
        ({"created": None}, "created"),
        ({"metadata": {"a": 1}}, "metadata"),
    ],
)
def test_a_wrong_answer_is_a_500_and_kept(
    server: LocalStripe, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    status, body = answer_with(server, monkeypatch, changes)
    assert status == 500
    assert "api_error" in body
    assert server.violations[0]["kind"] == "answer"
    assert words in server.violations[0]["message"]


def test_a_right_answer_is_answered(server: LocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer_with(server, monkeypatch, {})[0] == 200
    assert server.violations == []


def test_a_wrong_event_is_kept(server: LocalStripe) -> None:
    server.world.emit("customer.created", {"object": "customer", "id": "cus_1"})
    assert not server.check_events()
    assert {kept["kind"] for kept in server.violations} == {"event"}
