"""Completes the OpenAPI document with what every operation has: problems, headers, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drf_spectacular.generators import SchemaGenerator

from billing.api.idempotency import HEADER
from billing.api.problems import CODES, MEDIA_TYPE

EXAMPLES = Path(__file__).with_name("examples")
"""One file by operation, of what is sent under `request`, and of answers under their status."""
METHODS = ("get", "post", "put", "patch", "delete")
WRITING = {"post", "put", "patch"}

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A refusal, as RFC 9457 has it.",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; /api/problems lists them all."},
        "detail": {"type": "string", "description": "What is wrong, and the way out."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "detail"],
                "properties": {
                    "field": {"type": "string", "description": "A dotted path into the body."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
    "examples": [
        {
            "type": "/api/problems#not_found",
            "title": "Not Found",
            "status": 404,
            "code": "not_found",
            "detail": CODES["not_found"],
            "request_id": "5f0c2d3c1b0b4a0f9a3e7d1c2b3a4f5e",
        }
    ],
}
_REFUSALS = {
    "400": "The call is no good.",
    "401": "Nobody, or nobody known, asks.",
    "403": "Whoever asks may not.",
    "404": "There is no such thing in this account.",
    "406": "No media type that is accepted can be given.",
    "429": "Too many calls.",
    "503": "Something that the answer needs is silent.",
}
_REFUSALS_OF_WRITING = {
    "409": "It cannot be done as things stand.",
    "413": "The body is too large.",
    "415": "The body is of a media type that is not read here.",
    "422": "The Idempotency-Key was sent before with another call.",
}
_IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "The call is done once, however often it is sent with this key in a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}


def complete(
    result: dict[str, Any], generator: SchemaGenerator, request: object, public: object
) -> dict[str, Any]:
    """Return the document with problems beside every operation's own answers."""
    del generator, request, public
    result["components"].setdefault("schemas", {})["Problem"] = PROBLEM_SCHEMA
    for path, method, operation in _operations(result):
        operation["tags"] = [_subject(path)]
        responses = operation.setdefault("responses", {})
        refusals = _REFUSALS | (_REFUSALS_OF_WRITING if method in WRITING else {})
        for status, says in refusals.items():
            responses.setdefault(status, {"description": says})
        for status, response in responses.items():
            # An operation's own answer to a refusal stays, as where a batch is refused in part.
            if status >= "400" and not response.get("content"):
                response["content"] = {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                }
        _show_examples(operation)
        if method == "post" and any("apiKey" in one for one in operation.get("security", ())):
            operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    return result


def _show_examples(operation: dict[str, Any]) -> None:
    """Add the operation's examples; what its view shows itself stays."""
    path = EXAMPLES / f"{operation['operationId']}.json"
    examples = json.loads(path.read_text()) if path.exists() else {}
    for of, value in examples.items():
        shown = operation["requestBody"] if of == "request" else operation["responses"][of]
        for media_type, content in shown["content"].items():
            if media_type == "application/json":
                content.setdefault("examples", {"Example": {"value": value}})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _subject(path: str) -> str:
    """Return what the path is about, by which pages and clients made from it are ordered."""
    return path.removeprefix("/api/v1/").split("/", maxsplit=1)[0]
