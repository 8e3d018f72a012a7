"""Who asks the API and who sends webhooks: on time, whatever becomes of those before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

from bench.webhooking.load import Answers, on_time, request_about

PATHS = (
    "/api/v1/usage/current",
    "/api/v1/invoices",
    "/api/v1/usage/summary/current",
    "/api/v1/subscription",
)


def ask(port: int, keys: Sequence[str], *, a_second: int, seconds: int) -> Answers:
    """Ask for each account's pages in turn."""
    questions = ((key, path) for path in cycle(PATHS) for key in keys)
    requests = (_question(path, key) for key, path in questions)
    return asyncio.run(on_time(port, islice(requests, a_second * seconds), a_second=a_second))


def tell(port: int, customer_ids: Sequence[str], *, a_second: int, seconds: int) -> Answers:
    """Send webhooks about these customers in turn."""
    requests: Iterator[bytes] = map(request_about, cycle(customer_ids))
    return asyncio.run(on_time(port, islice(requests, a_second * seconds), a_second=a_second))


def _question(path: str, key: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Accept: */*",
        f"Authorization: Bearer {key}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()
