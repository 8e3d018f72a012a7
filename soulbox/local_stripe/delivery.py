"""Webhooks: signed events, delivered as often and in the order that the policy says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import aiohttp

from soulbox.local_stripe import events
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World

TIMEOUT_S = 20
MOST_LOGGED = 20_000
OK = range(200, 300)
WHEN = ("after", "before", "held")
ORDERS = ("in_order", "reversed", "shuffled")


@dataclass
class Policy:
    """When, how often and in which order events are delivered.

    `when` is before the answer to the call that caused them, after it, or held until they are asked
    for. `order` is that of the events of one call, or of those held. `drop` is the chance that a
    delivery is lost for good. `signed_at` is "real" time or the server's "clock".
    """

    when: str = "after"
    copies: int = 1
    order: str = "in_order"
    drop: float = 0.0
    seed: int = 0
    retry_after_s: list[float] = field(default_factory=list)
    signed_at: str = "real"

    def __post_init__(self) -> None:
        if self.when not in WHEN or self.order not in ORDERS:
            raise ValueError(f"when is one of {WHEN}, order one of {ORDERS}")


class Delivery:
    """Brings events to the endpoints, one after the other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.policy = Policy()
        self._random = random.Random(0)  # noqa: S311 - repeatable, and no secret
        self.held: list[str] = []
        self.log: deque[Obj] = deque(maxlen=MOST_LOGGED)
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._retries: set[asyncio.Task[Any]] = set()

    def apply(self, policy: Policy) -> None:
        """Deliver by this policy from now on."""
        self.policy = policy
        self._random = random.Random(policy.seed)  # noqa: S311 - repeatable, and no secret

    async def flush(self) -> None:
        """Take the events that calls have caused; return when this policy lets the answer go."""
        caused, self._world.outbox = self._world.outbox, []
        if not caused or not self._world.endpoints:
            return
        if self.policy.when == "held":
            self.held.extend(caused)
            return
        task = self._start(self.deliver(caused), self._tasks)
        if self.policy.when == "before":
            await asyncio.shield(task)

    async def deliver_held(self, **policy: Any) -> int:
        """Deliver what is held, by the policy with these changes. Returns how many events."""
        held, self.held = self.held, []
        usual = self.policy
        if policy:
            self.apply(Policy(**{**asdict(usual), **policy}))
        try:
            await self.deliver(held)
        finally:
            self.policy = usual
        return len(held)

    async def deliver(self, event_ids: list[str]) -> None:
        """Deliver these events, so often and in such an order as the policy says."""
        wanted = event_ids * self.policy.copies
        if self.policy.order == "reversed":
            wanted.reverse()
        elif self.policy.order == "shuffled":
            self._random.shuffle(wanted)
        async with self._turn:
            for event_id in wanted:
                for endpoint in list(self._world.endpoints):
                    if self._random.random() < self.policy.drop:
                        self._note(event_id, endpoint, status=None, what="dropped")
                    else:
                        await self._try(event_id, endpoint, retries=0)

    def resume(self) -> None:
        """Deliver again what was owed when the server went down."""
        owed = [event_id for event_id, to in self._world.state.owed.items() if to]
        if owed and self._world.endpoints:
            self._start(self.deliver(owed), self._tasks)

    async def settled(self) -> None:
        """Return when nothing is under way; retries that still wait do not count."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Give up on what is under way."""
        for task in (*self._tasks, *self._retries):
            task.cancel()
        if self._session is not None:
            await self._session.close()

    def forget(self) -> None:
        """Start afresh: nothing held, nothing to retry, nothing logged."""
        for task in (*self._tasks, *self._retries):
            task.cancel()
        self.held.clear()
        self.log.clear()
        self.apply(Policy())

    async def _try(self, event_id: str, endpoint: Obj, *, retries: int) -> None:
        event = self._world.state.table("event").get(event_id)
        if event is None:
            return
        if not any(fnmatchcase(event["type"], kind) for kind in endpoint["enabled_events"]):
            self._acknowledged(event_id, endpoint)
            return
        body = json.dumps(events.shown(self._world, event), indent=2).encode()
        signed_at = self._world.now if self.policy.signed_at == "clock" else int(time.time())
        status, what = await self._post(endpoint, body, signed_at)
        self._note(event_id, endpoint, status=status, what=what)
        if status in OK:
            self._acknowledged(event_id, endpoint)
        elif retries < len(self.policy.retry_after_s):
            self._start(self._retry(event_id, endpoint, retries), self._retries)

    async def _retry(self, event_id: str, endpoint: Obj, retries: int) -> None:
        await asyncio.sleep(self.policy.retry_after_s[retries])
        await self._try(event_id, endpoint, retries=retries + 1)

    async def _post(self, endpoint: Obj, body: bytes, at: int) -> tuple[int | None, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, endpoint["secrets"], at),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with self._session.post(endpoint["url"], data=body, headers=headers) as answer:
                return answer.status, (await answer.text())[:200]
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, repr(error)

    def _acknowledged(self, event_id: str, endpoint: Obj) -> None:
        owed = self._world.state.owed.get(event_id, [])
        if endpoint["id"] in owed:
            owed.remove(endpoint["id"])

    def _note(self, event_id: str, endpoint: Obj, *, status: int | None, what: str) -> None:
        event = self._world.state.table("event").get(event_id, {})
        self.log.append(
            {
                "event": event_id,
                "type": event.get("type"),
                "object": event.get("data", {}).get("object", {}).get("id"),
                "endpoint": endpoint["url"],
                "at": self._world.now,
                "status": status,
                "answer": what,
            }
        )

    def _start(
        self, doing: Coroutine[Any, Any, None], among: set[asyncio.Task[Any]]
    ) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(doing)
        among.add(task)
        task.add_done_callback(among.discard)
        return task


def signature(body: bytes, secrets: list[str], at: int) -> str:
    """Return the header that proves a body; while a secret is rotated there are two proofs."""
    proofs = [
        hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        for secret in secrets
    ]
    return ",".join([f"t={at}", *(f"v1={proof}" for proof in proofs)])


def endpoint(number: int, given: dict[str, Any]) -> Obj:
    """Return a webhook endpoint, with one secret or several."""
    secrets = given.get("secrets") or [given["secret"]]
    return {
        "id": f"we_{number}",
        "url": given["url"],
        "secrets": secrets,
        "enabled_events": given.get("enabled_events") or ["*"],
    }
