"""Idempotency keys: the first answer is kept with what was asked, and given again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from soulbox.local_stripe.errors import INVALID, StripeError
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World

KEPT_FOR_S = 24 * 3600
LONGEST_KEY = 255


class Keys:
    """The keys of one account, and those whose first call is still under way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under_way: set[str] = set()

    def recalled(self, key: str, path: str, given: dict[str, Any]) -> Obj | None:
        """Return the kept answer, None if this call is the first; then it is under way.

        Raises Stripe's errors: of a key used for something else (400), or just now (409).
        """
        if len(key) > LONGEST_KEY:
            raise StripeError(
                400, INVALID, f"Idempotency-Key can be at most {LONGEST_KEY} characters long."
            )
        kept = self._world.state.keys.get(key)
        if kept is not None and kept["at"] <= self._world.now - KEPT_FOR_S:
            del self._world.state.keys[key]
            kept = None
        if kept is not None:
            _check_same(key, kept, path, given)
            return kept
        if key in self._under_way:
            raise in_use(key)
        self._under_way.add(key)
        return None

    def keep(
        self,
        key: str,
        path: str,
        given: dict[str, Any],
        request_id: str,
        answer: tuple[int, str],
    ) -> None:
        """Keep the first answer of a key, of whatever status."""
        status, body = answer
        self._world.state.keys[key] = {
            "at": self._world.now,
            "path": path,
            "given": _digest(given),
            "request": request_id,
            "status": status,
            "body": body,
        }

    def finish(self, key: str) -> None:
        """Say that the call is over, kept or not."""
        self._under_way.discard(key)

    def prune(self) -> None:
        """Forget what is older than a day."""
        oldest = self._world.now - KEPT_FOR_S
        kept = self._world.state.keys
        for key in [key for key, answer in kept.items() if answer["at"] <= oldest]:
            del kept[key]


def in_use(key: str) -> StripeError:
    """Return the 409 of a key whose first call is not over."""
    return StripeError(
        409,
        INVALID,
        "There is currently another in-progress request using this Stripe-Idempotent-Key (that "
        f"probably means you submitted twice, and the other request is still under way): {key}.",
        code="idempotency_key_in_use",
    )


def _check_same(key: str, kept: Obj, path: str, given: dict[str, Any]) -> None:
    if kept["path"] != path:
        raise StripeError(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used for the same endpoint they were first "
            f"used for ('{path}' vs '{kept['path']}'). Try using a key other than '{key}' if you "
            "meant to execute a different request.",
        )
    if kept["given"] != _digest(given):
        raise StripeError(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used with the same parameters they were "
            f"first used with. Try using a key other than '{key}' if you meant to execute a "
            "different request.",
        )


def _digest(given: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
