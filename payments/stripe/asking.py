"""How every call of Stripe's is made: its key, its retries, its pages, its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from payments.stripe.errors import our_errors

if TYPE_CHECKING:
    from stripe._request_options import RequestOptions

READ_RETRIES = 1
"""Of what changes nothing. What changes something is tried once: no answer is looked up."""
PAGE = 100
READ: RequestOptions = {"max_network_retries": READ_RETRIES}


def once(key: str) -> RequestOptions:
    """Return the options of a call that is to happen once under its key."""
    return {"idempotency_key": key}


def made_in(since: datetime, until: datetime | None) -> dict[str, Any]:
    """Return what a list is asked for what was made in [since, until)."""
    created = {"gte": int(since.timestamp())}
    if until:
        created["lt"] = int(until.timestamp())
    return {"created": created, "limit": PAGE}


def json_of(answer: Any) -> dict[str, Any]:
    """Return one of the SDK's objects as plain values."""
    plain: dict[str, Any] = answer.to_dict(for_json=True)
    return plain


def pages(ask: Any, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a list of Stripe's holds, page by page, the newest first."""
    after: dict[str, str] = {}
    while True:
        with our_errors():
            page = json_of(ask({**asked, **after}, READ))
        yield from page["data"]
        if not page["has_more"]:
            return
        after = {"starting_after": page["data"][-1]["id"]}
