"""What the OpenAPI document tells of each operation, for people and for what is made from it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import jsonschema_rs
import pytest
from django.core.management import call_command

from billing.api.document import EXAMPLES, METHODS

# Files of other kinds, whose JSON is a document of its own.
FILES = {"invoice_download", "credit_note_download"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    written = StringIO()
    call_command("spectacular", "--format=openapi-json", "--fail-on-warn", stdout=written)
    document: dict[str, Any] = json.loads(written.getvalue())
    return document


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [item[one] for item in document["paths"].values() for one in METHODS if one in item]


def test_each_operation_has_a_name_of_its_own_and_says_what_it_does(
    document: dict[str, Any],
) -> None:
    names = [one["operationId"] for one in operations(document)]
    assert len(names) == len(set(names))
    for one in operations(document):
        # As is made up where nobody gave one.
        assert not one["operationId"].startswith("v1_")
        assert one["description"]
        assert one["tags"] != ["api"]


def test_each_body_and_answer_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    for one in operations(document):
        if one["operationId"] in FILES:
            continue
        shown = [answer for status, answer in one["responses"].items() if status < "300"]
        for content in [one.get("requestBody", {}), *shown]:
            told = content.get("content", {}).get("application/json")
            if told is None:
                continue
            assert told.get("examples"), one["operationId"]
            schema = {**told["schema"], "components": document["components"]}
            for example in told["examples"].values():
                problems = list(jsonschema_rs.iter_errors(schema, example["value"]))
                assert not problems, (one["operationId"], problems[0].message)


def test_every_file_of_examples_is_of_an_operation(document: dict[str, Any]) -> None:
    names = {one["operationId"] for one in operations(document)}
    assert {path.stem for path in EXAMPLES.glob("*.json")} <= names
