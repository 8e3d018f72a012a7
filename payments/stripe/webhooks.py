"""What Stripe sends to the webhook, read. It was signed; what it says is looked at all the same."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from payments.provider import ProviderEvent
from payments.stripe.shapes import event_of

REDACTED = "(not kept)"
_ID = re.compile(r"\w{1,255}", re.ASCII)
_TYPE = re.compile(r"[\w.]{1,100}", re.ASCII)
# What an event is about, and the API's version; some events have neither.
_WORD = re.compile(r"[\w.\-]{0,255}", re.ASCII)
# What lets its holder act for the customer, as a payment's `client_secret`.
_SECRET = re.compile("secret")
# What PostgreSQL's JSON cannot hold, though JSON can say it.
_NOT_KEPT = re.compile("[\x00\ud800-\udfff]")


class NotAnEventError(ValueError):
    """The body is not an event; the message says why."""


def read_event(body: bytes) -> ProviderEvent:
    """Return the event that a verified body holds. Raises NotAnEventError."""
    try:
        read = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NotAnEventError("The body is not JSON.") from None
    if not isinstance(read, dict) or read.get("object") != "event":
        raise NotAnEventError("The body is not an event.")
    try:
        event = event_of(read)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError) as error:
        raise NotAnEventError(f"The event is not whole: {type(error).__name__}.") from None
    words: dict[re.Pattern[str], tuple[Any, ...]] = {
        _ID: (event.id,),
        _TYPE: (event.type,),
        _WORD: (event.object_type, event.object_id, event.api_version),
    }
    for shape, values in words.items():
        if not all(isinstance(value, str) and shape.fullmatch(value) for value in values):
            raise NotAnEventError("The event's id, type, version or object cannot be read.")
    if not isinstance(event.is_live_mode, bool):
        raise NotAnEventError("The event does not say whether it is of live mode.")
    return event


def kept(value: Any) -> Any:
    """Return an event's body as it is kept: without secrets, and as the database can hold it."""
    if isinstance(value, str):
        return _NOT_KEPT.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [kept(held) for held in value]
    if isinstance(value, dict):
        return {
            kept(name): REDACTED if held and _SECRET.search(name) else kept(held)
            for name, held in value.items()
        }
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
