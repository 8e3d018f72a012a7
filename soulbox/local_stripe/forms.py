"""Requests' parameters: bracketed form keys into nested values, typed by the document's schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from soulbox.local_stripe.document import Schema
from soulbox.local_stripe.errors import StripeError, invalid

KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
MOST_METADATA_KEYS = 50
LONGEST_METADATA_KEY = 40
LONGEST_METADATA_VALUE = 500
BOOLEANS = {"true": True, "false": False}

Nested = dict[str, Any]
Resolve = Callable[[Schema], Schema]


def parsed(encoded: str) -> Nested:
    """Return nested dictionaries of strings; a list is a dictionary by place until it is typed."""
    nested: Nested = {}
    for key, value in parse_qsl(encoded, keep_blank_values=True, max_num_fields=20_000):
        found = KEY.fullmatch(key)
        if found is None:
            raise invalid(f"Invalid request (check your POST parameters): {key}", param=key)
        steps = [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]
        place = nested
        for index, step in enumerate(steps[:-1]):
            inner = place.setdefault(_step(place, step), {})
            if not isinstance(inner, dict):
                raise invalid("Invalid hash", param="".join(steps[: index + 1]))
            place = inner
        place[_step(place, steps[-1])] = value
    return nested


def _step(place: Nested, step: str) -> str:
    # `expand[]=a&expand[]=b`: each empty place is the next one.
    return step or str(len(place))


def typed(schema: Schema, raw: Any, param: str, resolve: Resolve, *, unsets: bool = True) -> Any:
    """Return a parameter as the type that the document gives it.

    `unsets` says whether an empty string may stand for unsetting, as it does in a body. Raises
    Stripe's 400 for an unknown, missing or ill-typed parameter.
    """
    schema = resolve(schema)
    if "anyOf" in schema:
        return _of_any(schema["anyOf"], raw, param, resolve)
    if schema.get("type") == "object":
        return _object(schema, raw, param, resolve, unsets=unsets)
    if schema.get("type") == "array":
        return _array(schema, raw, param, resolve)
    if read := SCALARS.get(schema.get("type", "")):
        return read(raw, param)
    return _string(schema, raw, param, unsets=unsets)


def _boolean(raw: Any, param: str) -> bool:
    if isinstance(raw, str) and raw in BOOLEANS:
        return BOOLEANS[raw]
    raise invalid(f"Invalid boolean: {raw}", param=param)


def _integer(raw: Any, param: str) -> int:
    if isinstance(raw, str) and re.fullmatch(r"-?\d{1,18}", raw):
        return int(raw)
    raise invalid(f"Invalid integer: {raw}", code="parameter_invalid_integer", param=param)


def _number(raw: Any, param: str) -> float:
    if isinstance(raw, str) and re.fullmatch(r"-?\d{1,15}(\.\d+)?", raw):
        return float(raw)
    raise invalid(f"Invalid decimal: {raw}", param=param)


SCALARS: dict[str, Callable[[Any, str], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
}


def _object(schema: Schema, raw: Any, param: str, resolve: Resolve, *, unsets: bool) -> Nested:
    if not isinstance(raw, dict):
        raise invalid("Invalid object", param=param)
    declared, others = schema.get("properties", {}), schema.get("additionalProperties", False)
    values: Nested = {}
    for name, value in raw.items():
        inside = f"{param}[{name}]" if param else name
        of = declared.get(name, others)
        if of is False:
            raise invalid(
                f"Received unknown parameter: {inside}", code="parameter_unknown", param=inside
            )
        # No schema for what a map holds: strings.
        of = of if isinstance(of, dict) else {"type": "string"}
        values[name] = typed(of, value, inside, resolve, unsets=unsets)
    for name in schema.get("required", []):
        if name not in values:
            inside = f"{param}[{name}]" if param else name
            raise invalid(
                f"Missing required param: {inside}.", code="parameter_missing", param=inside
            )
    if param.rsplit("[", maxsplit=1)[-1].rstrip("]").endswith("metadata"):
        _check_metadata(values, param)
    return values


def _array(schema: Schema, raw: Any, param: str, resolve: Resolve) -> list[Any]:
    if not isinstance(raw, dict) or not all(place.isdecimal() for place in raw):
        raise invalid("Invalid array", param=param)
    return [
        typed(schema["items"], raw[place], f"{param}[{place}]", resolve)
        for place in sorted(raw, key=int)
    ]


def _string(schema: Schema, raw: Any, param: str, *, unsets: bool) -> str:
    if not isinstance(raw, str):
        raise invalid("Invalid string: a hash was given", param=param)
    if raw == "" and not unsets:
        raise invalid(
            f"You passed an empty string for '{param}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{param}' cannot be unset.",
            code="parameter_invalid_empty",
            param=param,
        )
    if "enum" in schema and raw not in schema["enum"]:
        allowed = ", ".join(str(value) for value in schema["enum"])
        raise invalid(f"Invalid {param}: must be one of {allowed}", param=param)
    if len(raw) > schema.get("maxLength", len(raw)):
        raise invalid(
            f"Invalid string: {raw[:20]}...; must be at most {schema['maxLength']} characters",
            param=param,
        )
    return raw


def _of_any(alternatives: list[Schema], raw: Any, param: str, resolve: Resolve) -> Any:
    """Return the value as the first alternative that takes it; else what the first one says."""
    told: StripeError | None = None
    resolved = [resolve(of) for of in alternatives]
    # Of a nested value an object's complaint says more than that it is no string.
    fitting = [
        of for of in resolved if isinstance(raw, dict) == (of.get("type") in ("object", "array"))
    ]
    # A plain string takes anything, so it comes last.
    for of in sorted(fitting or resolved, key=lambda of: of.keys() <= {"type", "maxLength"}):
        try:
            return typed(of, raw, param, resolve)
        except StripeError as error:
            told = told or error
    raise told or invalid(f"Invalid {param}", param=param)


def _check_metadata(values: Nested, param: str) -> None:
    if len(values) > MOST_METADATA_KEYS:
        raise invalid(
            f"Metadata can have at most {MOST_METADATA_KEYS} keys; you tried to set {len(values)}.",
            param=param,
        )
    for key, value in values.items():
        if len(key) > LONGEST_METADATA_KEY:
            raise invalid(
                f"Metadata keys can be at most {LONGEST_METADATA_KEY} characters long; "
                f"your key '{key}' is {len(key)}.",
                param=f"{param}[{key}]",
            )
        if len(value) > LONGEST_METADATA_VALUE:
            raise invalid(
                f"Metadata values can have up to {LONGEST_METADATA_VALUE} characters, but you "
                f"passed in a value that is {len(value)} characters: {value[:20]}...",
                param=f"{param}[{key}]",
            )
