from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer


class JsonParser(BaseParser):
    """Reads a body as JSON that can be kept: no NaN, no half of a character, no deep nest."""

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what was sent. Raises ParseError."""
        del media_type, parser_context
        try:
            value = json.loads(stream.read(), parse_constant=_refuse)
            # Halves of characters outside the first plane can be written in JSON and not in UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except UnicodeError:
            raise ParseError("The body is no Unicode text.") from None
        except ValueError as error:
            raise ParseError(f"The body is no JSON: {error}") from None
        return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number.")
