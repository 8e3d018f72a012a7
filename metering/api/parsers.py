"""The bodies that a call may have: bounded, and JSON of three kinds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import IO, Any, TypedDict

from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from metering.api.parsing import Fields, open_event, open_sample

MOST_SAMPLES = 1000
LARGEST_BODY_BYTES = 2**20
# No figure that is taken has so many digits; Python refuses to read more than 4,300.
_DIGITS_READ = 40


class TooLargeError(APIException):
    """The call is over one of its limits, which the message names."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class SentCall(TypedDict):
    """The values a call sent, each a sample or an event with one, and how to open them."""

    values: list[Any]
    open_value: Callable[[Any], Fields]


class _Parser(BaseParser):
    """Reads a bounded body as JSON."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> SentCall:
        """Return what was sent. Raises ParseError, TooLargeError."""
        del media_type, parser_context
        body = stream.read(LARGEST_BODY_BYTES + 1)
        if len(body) > LARGEST_BODY_BYTES:
            raise TooLargeError(
                f"The body is over {LARGEST_BODY_BYTES} bytes. Send the samples in several calls."
            )
        try:
            # NaN and Infinity are read, so that their sample is named and the others count.
            value = json.loads(body, parse_int=_whole)
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except ValueError as error:
            raise ParseError(f"The body is no JSON: {error}") from None
        call = self.call_of(value)
        if not call["values"]:
            raise ParseError(f"There is no sample. Send 1 to {MOST_SAMPLES} in a call.")
        if len(call["values"]) > MOST_SAMPLES:
            raise TooLargeError(
                f"There are {len(call['values'])} samples. Send at most {MOST_SAMPLES} in a call."
            )
        return call

    def call_of(self, value: Any) -> SentCall:
        """Return the call that a JSON value is. Raises ParseError."""
        raise NotImplementedError


class SamplesParser(_Parser):
    """`{"samples": [...]}`."""

    media_type = "application/json"

    def call_of(self, value: Any) -> SentCall:
        """Return the samples listed."""
        if not (isinstance(value, dict) and isinstance(value.get("samples"), list)):
            raise ParseError('The body is an object with a list: {"samples": [...]}.')
        if unknown := value.keys() - {"samples"}:
            raise ParseError(f"The body has no field but samples; {min(unknown)[:64]!a} is none.")
        return {"values": value["samples"], "open_value": open_sample}


class EventBatchParser(_Parser):
    """A list of CloudEvents, each with a sample."""

    media_type = "application/cloudevents-batch+json"

    def call_of(self, value: Any) -> SentCall:
        """Return the events listed."""
        if not isinstance(value, list):
            raise ParseError("A batch of CloudEvents is a list.")
        return {"values": value, "open_value": open_event}


class EventParser(_Parser):
    """One CloudEvent with a sample."""

    media_type = "application/cloudevents+json"

    def call_of(self, value: Any) -> SentCall:
        """Return the one event."""
        return {"values": [value], "open_value": open_event}


def _whole(digits: str) -> int:
    return int(digits[:_DIGITS_READ])
