"""`expand[]`: ids in an answer replaced by their objects, where the document allows it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from soulbox.local_stripe.document import Document, Schema
from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.lists import whole
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import World

DEEPEST = 4
# Lists that an object holds only when they are asked for: the kind, and the field that names it.
ON_DEMAND = {
    ("invoice", "payments"): ("invoice_payment", "/v1/invoice_payments"),
    ("charge", "refunds"): ("refund", "/v1/charges/{id}/refunds"),
    ("customer", "subscriptions"): ("subscription", "/v1/customers/{id}/subscriptions"),
}


def expanded(world: World, schema: Schema, answer: Obj, paths: list[str]) -> Obj:
    """Return a copy of the answer with these paths expanded. Raises Stripe's 400."""
    shown = deepcopy(answer)
    for path in paths:
        steps = path.split(".")
        if len(steps) > DEEPEST + 1:
            raise invalid(
                f"You cannot expand more than {DEEPEST} levels of a property. Property: {path}",
                param="expand",
            )
        if not _allowed(world.document, schema, steps):
            raise invalid(
                f"This property cannot be expanded ({path}). You may want to try expanding "
                "another property.",
                code="property_not_expandable",
                param="expand",
            )
        _expand(world, shown, steps)
    return shown


def _allowed(document: Document, schema: Schema, steps: list[str]) -> bool:
    """Say whether the document lets this path be expanded, in any of a field's alternatives."""
    if not steps:
        return True
    schema = document.resolved(schema)
    if "anyOf" in schema:
        return any(_allowed(document, of, steps) for of in schema["anyOf"])
    if schema.get("type") == "array" or schema.get("type") == ["array", "null"]:
        return _allowed(document, schema["items"], steps)
    step, *rest = steps
    if step not in schema.get("x-expandableFields", []):
        return False
    return _allowed(document, schema["properties"][step], rest)


def _expand(world: World, shown: Any, steps: list[str]) -> None:
    if isinstance(shown, list):
        for one in shown:
            _expand(world, one, steps)
        return
    if not isinstance(shown, dict):
        return
    step, *rest = steps
    if (shown.get("object"), step) == ("invoice", "confirmation_secret"):
        shown[step] = _confirmation_secret(world, shown)
    if (on_demand := ON_DEMAND.get((shown.get("object", ""), step))) and step not in shown:
        shown[step] = _list(world, shown, *on_demand)
    if shown.get(step) is None:
        return
    shown[step] = _in_place(world, shown[step])
    if rest:
        _expand(world, shown[step], rest)


def _in_place(world: World, value: Any) -> Any:
    if isinstance(value, str):
        found = world.state.find(value)
        return value if found is None else deepcopy(found)
    if isinstance(value, list):
        return [_in_place(world, one) for one in value]
    return value


def _confirmation_secret(world: World, invoice: Obj) -> Obj | None:
    """Return what a browser confirms the payment with; drafts and zero invoices have none."""
    for record in world.state.table("invoice_payment").values():
        if record["invoice"] == invoice["id"]:
            intent = world.get("payment_intent", record["payment"]["payment_intent"])
            return {"client_secret": intent["client_secret"], "type": "payment_intent"}
    return None


def _list(world: World, holder: Obj, kind: str, url: str) -> Obj:
    found = [one for one in world.all(kind) if one.get(holder["object"]) == holder["id"]]
    return whole(deepcopy(found), url.format(id=holder["id"]))
