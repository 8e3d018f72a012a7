"""What a call works on: the state, the clock, the document, and the events that it causes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from soulbox.local_stripe.clock import Clock
from soulbox.local_stripe.document import Document, Operation
from soulbox.local_stripe.errors import missing
from soulbox.local_stripe.state import Obj, State


@dataclass
class World:
    """One account of Stripe's, in test mode."""

    document: Document
    state: State
    clock: Clock
    # Where the hosted pages are, for the addresses in answers.
    address: str = ""
    search_lag_s: int = 60
    # Events that nobody has been told of yet, and who asked for what caused them.
    outbox: list[str] = field(default_factory=list)
    request: Obj = field(default_factory=dict)
    endpoints: list[Obj] = field(default_factory=list)

    @property
    def now(self) -> int:
        """The time by the server's clock, in unix seconds."""
        return self.clock.now()

    def add(self, made: Obj) -> Obj:
        """Keep a new object."""
        self.state.table(made["object"])[made["id"]] = made
        return made

    def get(self, kind: str, object_id: str, *, param: str = "id") -> Obj:
        """Return an object. Raises Stripe's resource_missing."""
        found = self.state.table(kind).get(object_id)
        if found is None:
            raise missing(kind, object_id, param=param)
        return found

    def all(self, kind: str) -> list[Obj]:
        """Return all objects of a kind, newest first."""
        return list(reversed(self.state.table(kind).values()))

    def emit(self, kind: str, about: Obj, *, previous: Obj | None = None) -> Obj:
        """Keep an event with a snapshot of the object, to be delivered as the policy says."""
        told: Obj = {"object": deepcopy(about)}
        if previous is not None:
            told["previous_attributes"] = previous
        event: Obj = {
            "id": self.state.new_id("evt"),
            "object": "event",
            "api_version": self.document.version,
            "created": self.now,
            "data": told,
            "livemode": False,
            "pending_webhooks": len(self.endpoints),
            "request": {
                "id": self.request.get("id"),
                "idempotency_key": self.request.get("idempotency_key"),
            },
            "type": kind,
        }
        self.state.owed[event["id"]] = [endpoint["id"] for endpoint in self.endpoints]
        self.outbox.append(event["id"])
        return self.add(event)


@dataclass(frozen=True)
class Call:
    """One request: its parameters are typed and known to the document."""

    world: World
    operation: Operation
    in_path: dict[str, str]
    given: dict[str, Any]

    @property
    def id(self) -> str:
        """The one variable of the path."""
        return next(iter(self.in_path.values()))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter; an empty one unsets, so it reads as None."""
        value = self.given.get(name, default)
        return None if value == "" else value


@dataclass(frozen=True)
class Served:
    """How an operation is served, and which of Stripe's parameters are heeded."""

    answer: Callable[[Call], Obj]
    takes: frozenset[str]


def served(answer: Callable[[Call], Obj], *takes: str) -> Served:
    """Return how an operation is served; `expand` is heeded by all."""
    return Served(answer, frozenset({*takes, "expand"}))


def changed(before: Obj, after: Obj) -> Obj:
    """Return the attributes that differ, with their values before: an event's previous ones."""
    return {name: value for name, value in before.items() if after.get(name) != value}


def with_metadata(held: Obj | None, given: Any) -> Obj:
    """Return metadata as Stripe merges it: an empty value unsets its key, an empty string all."""
    if given == "":
        return {}
    merged = {**(held or {}), **given}
    return {key: value for key, value in merged.items() if value != ""}
