"""Pages of objects: lists with cursors, and searches."""

from __future__ import annotations

import re
from typing import Any

from soulbox.local_stripe.errors import invalid
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call

USUAL_LIMIT = 10
LARGEST_LIMIT = 100
PAGING = ("limit", "starting_after", "ending_before", "created")
CLAUSE = re.compile(
    r"""(?P<field>email|name|metadata\[['"](?P<key>[^'"]+)['"]\])\s*:\s*"""
    r"""(?P<quote>['"])(?P<value>(?:\\.|(?!(?P=quote)).)*)(?P=quote)""",
    re.VERBOSE,
)


def page(call: Call, found: list[Obj], url: str) -> Obj:
    """Return the page of these objects, newest first, that the call's cursors ask for."""
    chosen = [one for one in found if _was_created(one, call.get("created"))]
    limit = _limit(call)
    after, before = call.get("starting_after"), call.get("ending_before")
    if after and before:
        raise invalid("You can only provide one of starting_after and ending_before.")
    if before:
        # The page that ends just before the object: the nearest ones, in the list's order.
        start_to = chosen[: _place(chosen, before, "ending_before")]
        shown, more = start_to[-limit:], len(start_to) > limit
    else:
        rest = chosen[_place(chosen, after, "starting_after") + 1 :] if after else chosen
        shown, more = rest[:limit], len(rest) > limit
    return {"object": "list", "data": shown, "has_more": more, "url": url}


def whole(found: list[Obj], url: str, limit: int = USUAL_LIMIT) -> Obj:
    """Return the first page of a list inside another object."""
    return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": url}


def search(call: Call, found: list[Obj], url: str) -> Obj:
    """Return what a search query finds: clauses `field:'value'` that all must hold."""
    clauses = _clauses(call.get("query"))
    hits = [one for one in found if all(_holds(one, name, key, v) for name, key, v in clauses)]
    start = int(call.get("page") or 0)
    end = start + _limit(call)
    return {
        "object": "search_result",
        "data": hits[start:end],
        "has_more": len(hits) > end,
        "next_page": str(end) if len(hits) > end else None,
        "url": url,
    }


def _limit(call: Call) -> int:
    limit: int = call.get("limit", USUAL_LIMIT)
    if not 1 <= limit <= LARGEST_LIMIT:
        raise invalid(
            f"This value must be between 1 and {LARGEST_LIMIT}.",
            code="parameter_invalid_integer",
            param="limit",
        )
    return limit


def _place(chosen: list[Obj], object_id: str, param: str) -> int:
    for place, one in enumerate(chosen):
        if one["id"] == object_id:
            return place
    raise invalid(f"No such object: '{object_id}'", code="resource_missing", param=param)


def _was_created(one: Obj, asked: Any) -> bool:
    if asked is None:
        return True
    created = one.get("created", one.get("date"))
    if isinstance(asked, int):
        return bool(created == asked)
    compared = {
        "gt": lambda bound: created > bound,
        "gte": lambda bound: created >= bound,
        "lt": lambda bound: created < bound,
        "lte": lambda bound: created <= bound,
    }
    return all(compared[name](bound) for name, bound in asked.items())


def _clauses(query: str) -> list[tuple[str, str | None, str]]:
    clauses = []
    for part in re.split(r"\s+AND\s+", query.strip(), flags=re.IGNORECASE):
        clause = CLAUSE.fullmatch(part.strip())
        if clause is None:
            raise invalid(f"We were unable to parse your search query: {part}", param="query")
        value = re.sub(r"\\(.)", r"\1", clause["value"])
        clauses.append((clause["field"].partition("[")[0], clause["key"], value))
    return clauses


def _holds(one: Obj, name: str, key: str | None, value: str) -> bool:
    held = one[name].get(key) if key is not None else one.get(name)
    return bool(held is not None and held.lower() == value.lower())
