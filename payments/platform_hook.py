"""Asks the platform, over HTTP, to stop or resume an account's sandboxes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import requests

from payments.signatures import sign

TIMEOUT_S: Final = 5
SIGNATURE: Final = "SoulBox-Signature"
_ACCEPTED: Final = range(200, 300)


class HookError(Exception):
    """The platform did not say yes; it may have done what was asked, and is asked again."""


@dataclass(frozen=True, slots=True)
class HookRequest:
    """What is asked. The same id is the same request, asked again."""

    id: int
    account_id: UUID
    action: str
    reason: str
    requested_at: datetime

    @property
    def body(self) -> bytes:
        """The JSON that is sent."""
        return json.dumps(
            {
                "id": self.id,
                "account_id": str(self.account_id),
                "action": self.action,
                "reason": self.reason,
                "requested_at": self.requested_at.isoformat().replace("+00:00", "Z"),
            }
        ).encode()


def post(request: HookRequest, *, url: str, secret: str, now: datetime) -> None:
    """Ask the platform. Raises HookError unless it answers with 2xx.

    No redirect is followed. The body is signed as Stripe signs webhooks.
    """
    if fault := fault_of(url, secret):
        raise HookError(fault)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "SoulBox-Billing",
        SIGNATURE: sign(request.body, secret=secret, now=now),
    }
    try:
        # Of the answer only the status counts, so the rest is not waited for.
        with requests.post(
            url,
            data=request.body,
            headers=headers,
            timeout=TIMEOUT_S,
            allow_redirects=False,
            stream=True,
        ) as answer:
            status = answer.status_code
    except requests.RequestException as error:
        raise HookError(f"{type(error).__name__}: {error}") from error
    if status not in _ACCEPTED:
        raise HookError(f"The platform answered {status}.")


def fault_of(url: str, secret: str) -> str:
    """Return what is wrong with the hook's settings; empty: nothing."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "PLATFORM_HOOK_URL is no address that begins with http:// or https://."
    if not secret:
        return "PLATFORM_HOOK_SECRET is not set, so the platform could not tell who asks."
    return ""
