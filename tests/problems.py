"""Reads a refusal of the API."""

from __future__ import annotations

from typing import Any


def errors_of(answer: Any) -> dict[str, list[str]]:
    """Return what is said of each field of a refused call."""
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("invalid", answer.status_code)
    said: dict[str, list[str]] = {}
    for error in problem["errors"]:
        said.setdefault(error["field"], []).append(error["detail"])
    return said
