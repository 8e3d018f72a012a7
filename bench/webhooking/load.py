"""Webhooks sent as Stripe sends them: on time, whether the one before was answered or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from statistics import quantiles
from typing import Any

from django.conf import settings

from bench.harness.web import HOST
from payments.signatures import sign
from payments.stripe.client import API_VERSION

PADDING = "x" * 6_000
"""An invoice of a dozen lines has about so many bytes."""
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back: milliseconds from when each was due, and how many of each status.

    `dues_s` says when each was due, in seconds from the first.
    """

    times_ms: Sequence[float]
    statuses: Counter[str]
    seconds: float
    dues_s: Sequence[float] = ()

    def told(self) -> dict[str, Any]:
        """Return the figures."""
        cuts = quantiles(self.times_ms, n=1000)
        return {
            "requests": len(self.times_ms),
            "answers": dict(self.statuses),
            "a_second": round(len(self.times_ms) / self.seconds, 1),
            "median": round(cuts[499], 2),
            "p95": round(cuts[949], 2),
            "p99": round(cuts[989], 2),
            "longest": round(max(self.times_ms), 2),
        }


def request_about(customer_id: str) -> bytes:
    """Return a signed request that says that a customer changed; each is another event."""
    event = {
        "id": f"evt_bench_{next(_numbers)}",
        "object": "event",
        "type": "customer.updated",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": {"id": customer_id, "object": "customer", "description": PADDING}},
    }
    body = json.dumps(event, indent=2).encode()
    secret = settings.STRIPE_WEBHOOK_SECRETS[0]
    lines = (
        "POST /api/v1/webhook/stripe HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Stripe-Signature: {sign(body, secret=secret, now=datetime.now(UTC))}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


async def send(port: int, request: bytes) -> str:
    """Return the status of the answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer[:12].decode()[-3:]


async def one_by_one(port: int, requests: Iterable[bytes]) -> Answers:
    """Send each when the one before it was answered: what a worker can do at most."""
    times, statuses = [], Counter[str]()
    began = time.perf_counter()
    for request in requests:
        sent = time.perf_counter()
        statuses[await send(port, request)] += 1
        times.append((time.perf_counter() - sent) * 1000)
    return Answers(times, statuses, time.perf_counter() - began)


async def on_time(port: int, requests: Iterable[bytes], *, a_second: int) -> Answers:
    """Send so many a second, whatever becomes of those before.

    Each is timed from when it was due, so that a stall counts for all that it held up.
    """
    times, dues, statuses = [], [], Counter[str]()
    began = time.perf_counter()

    async def one(request: bytes, due: float) -> None:
        try:
            statuses[await send(port, request)] += 1
        except OSError as error:
            statuses[type(error).__name__] += 1
        times.append((time.perf_counter() - due) * 1000)
        dues.append(due - began)

    tasks = []
    for number, request in enumerate(requests):
        due = began + number / a_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request, due)))
    await asyncio.gather(*tasks)
    return Answers(times, statuses, time.perf_counter() - began, dues)
