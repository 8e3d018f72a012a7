from __future__ import annotations

import logging

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "data",
    "request",
    "server_time",
}


class LineFormatter(logging.Formatter):
    """One line an event, with the `extra` fields behind the message as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the formatted line, the extra fields last."""
        line = super().formatMessage(record)
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in _OWN]
        return " ".join([line, *fields])
