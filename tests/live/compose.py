"""What docker-compose.yml runs of ours, read from the file itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.processes import ROOT

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the compose file that runs our image: its command and its environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def services(values: Mapping[str, str]) -> dict[str, Service]:
    """Return the services that run our image, filled in from `values` as compose would from .env.

    A secret that is not among them, as of a server that is another one here, is its own name.
    """
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return {
        name: Service(
            name,
            tuple(fill(word, values) for word in _words(service)),
            {
                # Without a value of its own it is passed on.
                key: values.get(key, "") if value is None else fill(str(value), values)
                for key, value in service.get("environment", {}).items()
            },
        )
        for name, service in file["services"].items()
        if "build" in service
    }


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its ${VARIABLES} filled in."""

    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        if name is None:
            return "$"
        if given := values.get(name):
            return given
        if kind == "?":
            return str(name)
        return default or ""

    return _VARIABLE.sub(value, text)


def _words(service: Mapping[str, Any]) -> list[str]:
    """Return the service's command, or the image's own where it has none."""
    command = service.get("command") or _command_of_the_image()
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def _command_of_the_image() -> list[str]:
    [*_, last] = re.findall(r"^CMD (\[.+\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    words: list[str] = yaml.safe_load(last)
    return words
