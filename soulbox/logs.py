"""How events are written: a line for people, or a JSON object for programs; and never a secret."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.processors import (
    EventRenamer,
    JSONRenderer,
    StackInfoRenderer,
    TimeStamper,
    format_exc_info,
)
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

from soulbox import environment

HIDDEN = "[hidden]"
DEEPEST = 6
"""What lies deeper in a field is told as text."""
REQUESTS = "soulbox.requests"
"""Who logs each request."""
# Objects of Django's and of servers', which say nothing in text.
_OBJECTS = frozenset({"request", "server_time", "data"})
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"} | _OBJECTS
# Keys of ours and of Stripe's, what signs, and what a browser or a program shows to get in.
_SECRET = re.compile(
    r"\b(?:sbx_[a-z]+_|sk_(?:live|test)_|rk_(?:live|test)_|whsec_|seti_\w+_secret_)[\w-]+"
    r"|(?<=Bearer )[\w.~+/-]+=*"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    # Links that let people in.
    r"|(?<=/password/)[^/\s?]+/[^/\s?]+|(?<=/sign-up/)[^/\s?]+|(?<=/invitations/)[^/\s?]+"
    # What stands behind a name like these, in a query or in the text of a dictionary.
    r"|(?<=[?&])(?:[\w-]*(?:token|secret|password|key|signature)[\w-]*)=[^&\s\"']+"
    r"|(?i:['\"][\w-]*(?:password|secret|authorization|cookie|token|cvc)[\w-]*['\"]:\s*)['\"][^'\"]*['\"]"
)
_SECRET_NAMES = re.compile(r"password|secret|authorization|cookie|token|cvc|card", re.IGNORECASE)
# Of a card, in groups or not; what else has so many digits seldom has the right last one.
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")

Event = MutableMapping[str, Any]

_contexts: list[Callable[[], Mapping[str, str]]] = []


def add_context(read: Callable[[], Mapping[str, str]]) -> None:
    """Let each event say what `read` returns at that moment. Safe to repeat."""
    if read not in _contexts:
        _contexts.append(read)


def logging_of(*, is_for_people: bool) -> dict[str, Any]:
    """Return what `logging` is told: who writes how, to where. LOG_FORMAT counts more."""
    form = environment.choice("LOG_FORMAT", ("line", "json")) or (
        "line" if is_for_people else "json"
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": "soulbox.logs.LineFormatter",
                "format": "{asctime} {levelname} {name}: {message}",
                "style": "{",
            },
            "json": {"()": "soulbox.logs.json_formatter"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
        "root": {"handlers": ["stderr"], "level": environment.text("LOG_LEVEL")},
        "loggers": {
            # Two lines for each call; what is asked and answered is in a table.
            "stripe": {"level": "WARNING"},
            # What was refused is in the line of the request.
            "django.request": {"level": "ERROR"},
            # People at a terminal see what they do.
            REQUESTS: {"level": "INFO" if form == "json" else "WARNING"},
        },
    }


class LineFormatter(logging.Formatter):
    """One line an event, with the ids of what is at work and the `extra` fields behind it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the formatted line, the fields last, as `name=value`."""
        line = super().formatMessage(record)
        fields = get_contextvars() | _more() | vars(record)
        told = [f"{name}={value}" for name, value in _shown(fields).items() if name not in _OWN]
        return " ".join([line, *told])

    def format(self, record: logging.LogRecord) -> str:
        """Return all of the event, its traceback too, without secrets."""
        return without_secrets(super().format(record))


def json_formatter() -> logging.Formatter:
    """Return a formatter that writes one JSON object an event, its time in UTC."""
    return ProcessorFormatter(
        foreign_pre_chain=[
            merge_contextvars,
            _add_more,
            add_log_level,
            add_logger_name,
            TimeStamper(fmt="iso", utc=True),
            ExtraAdder(),
        ],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            _leave_objects_out,
            StackInfoRenderer(),
            format_exc_info,
            EventRenamer("message"),
            _hide_secrets,
            JSONRenderer(default=str),
        ],
    )


def without_secrets(text: str) -> str:
    """Return the text with what looks like a key, a token or a password of an address hidden."""
    return _CARD.sub(_unless_card, _SECRET.sub(HIDDEN, text))


def _unless_card(found: re.Match[str]) -> str:
    """Return what was found, hidden where its last digit is a card number's (Luhn)."""
    digits = [int(digit) for digit in found[0] if digit.isdigit()]
    odd = digits[-1::-2]
    even = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return HIDDEN if (sum(odd) + sum(even)) % 10 == 0 else found[0]


def _more() -> dict[str, Any]:
    return {name: value for read in _contexts for name, value in read().items()}


def _add_more(_logger: Any, _method: str, event: Event) -> Event:
    event.update(_more())
    return event


def _leave_objects_out(_logger: Any, _method: str, event: Event) -> Event:
    for name in _OBJECTS:
        event.pop(name, None)
    return event


def _hide_secrets(_logger: Any, _method: str, event: Event) -> Event:
    return _shown(event)


def _shown(fields: Mapping[Any, Any], *, depth: int = 0) -> dict[str, Any]:
    return {
        str(name): HIDDEN if _SECRET_NAMES.search(str(name)) else _value(value, depth)
        for name, value in fields.items()
    }


def _value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < DEEPEST and isinstance(value, Mapping):
        return _shown(value, depth=depth + 1)
    if depth < DEEPEST and isinstance(value, list | tuple | set):
        return [_value(one, depth + 1) for one in value]
    return without_secrets(str(value))
