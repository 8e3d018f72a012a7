"""The server: what happens to a call between its arrival and its answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from soulbox.local_stripe import forms, prices
from soulbox.local_stripe.delivery import Delivery
from soulbox.local_stripe.document import Document, Operation
from soulbox.local_stripe.errors import INVALID, StripeError, invalid
from soulbox.local_stripe.expanding import expanded
from soulbox.local_stripe.faults import Faults, Rule
from soulbox.local_stripe.idempotency import Keys, in_use
from soulbox.local_stripe.operations import OPERATIONS
from soulbox.local_stripe.state import Obj, State
from soulbox.local_stripe.world import Call, World

MOST_LOGGED = 20_000
MOST_BODY_BYTES = 4 * 2**20
TEST_KEYS = ("sk_test_", "rk_test_")


class Gone(Exception):  # noqa: N818 - not an error: the call ends without an answer
    """The connection was cut on purpose."""


class LocalStripe:
    """One account of Stripe's, behind its HTTP API."""

    def __init__(self, document: Document, world: World, state_file: Path | None = None) -> None:
        self.document = document
        self.world = world
        self.state_file = state_file
        self.keys = Keys(world)
        self.faults = Faults()
        self.delivery = Delivery(world)
        self.violations: list[Obj] = []
        self.log: deque[Obj] = deque(maxlen=MOST_LOGGED)
        if not world.state.table("price"):
            prices.seed(world)

    def reset(self, seed: int | None = None) -> None:
        """Forget everything but violations; a seed makes the ids to come repeatable."""
        self.world.state = State()
        if seed is not None:
            self.world.state.random.seed(seed)
        self.world.outbox.clear()
        self.world.clock.reset()
        self.faults.clear()
        self.delivery.forget()
        self.log.clear()
        prices.seed(self.world)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call of Stripe's API."""
        request_id = self.world.state.new_id("req", 14)
        noted: Obj = {"id": request_id, "at": self.world.now, "path": request.path, "fault": None}
        self.log.append({**noted, "method": request.method})
        noted = self.log[-1]
        headers = {"request-id": request_id, "stripe-version": self.document.version}
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key:
            headers["idempotency-key"] = noted["key"] = key
        try:
            status, body = await self._served(request, noted, headers, key)
        except StripeError as error:
            status, body = error.status, self._error_body(error, request_id)
        except Gone:
            # Nobody reads this: the connection is closed.
            return web.Response()
        noted["status"] = status
        return web.Response(
            status=status, text=body, headers=headers, content_type="application/json"
        )

    async def _served(
        self, request: web.Request, noted: Obj, headers: dict[str, str], key: str | None
    ) -> tuple[int, str]:
        check_key(request)
        operation, in_path = self._operation(request)
        noted["operation"] = operation.name
        fault = self.faults.next_for(operation.name)
        noted["fault"] = fault and fault.kind
        if fault and fault.kind == "429":
            raise StripeError(429, INVALID, "Too many requests.", code="rate_limit")
        if fault and fault.kind == "409":
            raise in_use(key or "")
        given = await self._parameters(request, operation, noted)
        noted["given"] = given
        if key and (kept := self.keys.recalled(key, request.path, given)):
            headers["Idempotent-Replayed"] = "true"
            headers["original-request"] = kept["request"]
            noted["replayed"] = True
            return kept["status"], kept["body"]
        call = Call(self.world, operation, in_path, given)
        work = self._worked(request, call, noted, fault, key)
        # Stripe does its work to the end, whether the client waits for it or not.
        return await (asyncio.shield(work) if fault and fault.kind == "delay" else work)

    def _operation(self, request: web.Request) -> tuple[Operation, dict[str, str]]:
        found = self.document.route(request.method, request.path)
        if found is not None:
            return found
        known = self.document.has(request.method, request.path)
        self.violate(
            "operation not served here" if known else "no such operation",
            f"{request.method} {request.path}",
        )
        raise StripeError(
            404,
            INVALID,
            f"Unrecognized request URL ({request.method}: {request.path}).",
        )

    async def _parameters(
        self, request: web.Request, operation: Operation, noted: Obj
    ) -> dict[str, Any]:
        """Return what the call says, typed. Raises Stripe's 400, and keeps it as a violation."""
        version = request.headers.get("Stripe-Version")
        if version != self.document.version:
            self.violate("version", f"{operation.name}: {version}, not {self.document.version}")
        encoded = "&".join(filter(None, [request.query_string, await request.text()]))
        try:
            given: dict[str, Any] = forms.typed(
                operation.parameters,
                forms.parsed(encoded),
                "",
                self.document.resolved,
                unsets=request.method == "POST",
            )
            wrong = self.document.faults(operation.parameters, given, key=f"ask {operation.name}")
            if wrong:
                raise invalid("; ".join(wrong))
            if unheeded := given.keys() - OPERATIONS[operation.name].takes:
                raise invalid(
                    f"The local server does not heed {', '.join(sorted(unheeded))} of "
                    f"{operation.name}."
                )
        except StripeError as error:
            noted["refused"] = error.message
            self.violate("request", f"{operation.name}: {error.message}")
            raise
        return given

    async def _worked(
        self, request: web.Request, call: Call, noted: Obj, fault: Rule | None, key: str | None
    ) -> tuple[int, str]:
        """Do the work, keep the answer, tell of it, and fail as the fault says."""
        kind = fault.kind if fault else ""
        hold_s = fault.seconds if fault and not kind.startswith("reset") else 0
        try:
            if kind == "delay":
                await asyncio.sleep(hold_s)
            if kind in ("timeout_before", "reset_before"):
                await cut(request, hold_s)
            if kind == "500_before":
                status, body = 500, self._error_body(broken(), noted["id"])
            else:
                self.world.request = {"id": noted["id"], "idempotency_key": key}
                status, body = self._outcome(call, noted["id"])
            if kind == "500_after_success":
                status, body = 500, self._error_body(broken(), noted["id"])
            noted["outcome"] = status
            if key:
                self.keys.keep(key, request.path, call.given, noted["id"], (status, body))
            if request.method != "GET":
                self.save()
            await self.delivery.flush()
            if kind in ("timeout_after_success", "reset_after_success"):
                await cut(request, hold_s)
        finally:
            if key:
                self.keys.finish(key)
        return status, body

    def _outcome(self, call: Call, request_id: str) -> tuple[int, str]:
        """Return status and body of the work, checked against the document."""
        operation = call.operation
        try:
            made = OPERATIONS[operation.name].answer(call)
            answer = expanded(self.world, operation.answer, made, call.get("expand") or [])
        except StripeError as error:
            self.check_events()
            return error.status, self._error_body(error, request_id)
        wrong = self.document.faults(operation.answer, answer, key=operation.name)
        for fault in wrong:
            self.violate("answer", f"{operation.name}: {fault}")
        if wrong or not self.check_events():
            return 500, self._error_body(broken(), request_id)
        return 200, json.dumps(answer, indent=2)

    def check_events(self) -> bool:
        """Say whether the events to be told are as the document has them."""
        wrong = [
            f"{event['type']}: {fault}"
            for event_id in self.world.outbox
            if (event := self.world.state.table("event").get(event_id))
            for about in (event, event["data"]["object"])
            for fault in self.document.faults_of_object(about)
        ]
        for fault in wrong:
            self.violate("event", fault)
        return not wrong

    def _error_body(self, error: StripeError, request_id: str) -> str:
        body = error.body(request_id)
        for fault in self.document.faults(
            {"$ref": "#/components/schemas/error"}, body, key="error"
        ):
            self.violate("answer", f"error: {fault}")
        return json.dumps(body, indent=2)

    def violate(self, kind: str, message: str) -> None:
        """Keep what must not happen: tests read it."""
        self.violations.append({"kind": kind, "message": message, "at": self.world.now})

    def save(self) -> None:
        """Write the state to its file, where there is one."""
        if self.state_file is not None:
            self.world.state.save(self.state_file)


def check_key(request: web.Request) -> None:
    """Raise Stripe's 401 unless the call has a test key."""
    scheme, _space, key = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Bearer" and key.startswith(TEST_KEYS):
        return
    shown = f"{key[:8]}****{key[-4:]}" if key else "none"
    raise StripeError(401, INVALID, f"Invalid API Key provided: {shown}")


def broken() -> StripeError:
    """Return the error of a server that broke."""
    return StripeError(500, "api_error", "An error occurred inside the server. This one, locally.")


async def cut(request: web.Request, after_s: float) -> None:
    """Hold the connection for so long, then reset it. Raises Gone."""
    await asyncio.sleep(after_s)
    if request.transport is not None:
        held = request.transport.get_extra_info("socket")
        with suppress(OSError):
            # Zero seconds to linger: the client sees a reset, not an end.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    raise Gone
