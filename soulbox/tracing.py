"""Traces by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT says where they go; else nothing.

Nothing of OpenTelemetry is imported before that is known: without it there is no cost. A process
that forks starts it in its children, since threads that send do not come along.
"""

from __future__ import annotations

import os

from soulbox import environment


def start_tracing(process: str) -> None:
    """Trace what this process does from now on, as `process`. Safe to repeat."""
    if not environment.text("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    given = {
        "OTEL_EXPORTER_OTLP_HEADERS": environment.text("OTEL_EXPORTER_OTLP_HEADERS"),
        "OTEL_TRACES_SAMPLER": environment.text("OTEL_TRACES_SAMPLER"),
        "OTEL_TRACES_SAMPLER_ARG": environment.text("OTEL_TRACES_SAMPLER_ARG"),
    }
    for name, value in given.items():
        # OpenTelemetry reads them by itself, and to it nothing is not the same as not set.
        if not value:
            os.environ.pop(name, None)
    from soulbox import spans  # noqa: PLC0415 - a third of a second that only tracing shall cost

    spans.start(process)


def send_rest() -> None:
    """Send what waits, before the process ends without a word."""
    if environment.text("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from soulbox import spans  # noqa: PLC0415 - as above

        spans.flush()
