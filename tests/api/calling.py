"""Calls the API as a program or as a signed-in member would."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.test import Client

from billing import services
from billing.models import Account, Membership
from tests.billing.usage import NOON

ALL_SCOPES = ("read", "write", "metering", "admin")


class Api:
    """One caller: an account's key, or a member who is signed in."""

    def __init__(self, client: Client, headers: dict[str, str]) -> None:
        self.client, self.headers = client, headers

    @classmethod
    def by_key(cls, account_id: UUID, *scopes: str) -> Api:
        issued = services.issue_api_key(
            account_id, name="test", scopes=scopes or ALL_SCOPES, now=NOON
        )
        return cls(Client(), {"Authorization": f"Bearer {issued.key}"})

    @classmethod
    def by_member(cls, account: Account, role: Membership.Role, name: str = "") -> Api:
        user = User.objects.create_user(name or f"{role}-{account.pk}")
        Membership.objects.create(user=user, account=account, role=role)
        client = Client()
        client.force_login(user)
        return cls(client, {})

    @classmethod
    def anonymous(cls) -> Api:
        return cls(Client(), {})

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(f"/api/v1/{path}", headers=self.headers | headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.client.generic(
            method.upper(),
            f"/api/v1/{path}",
            b"" if body is None else body if isinstance(body, bytes) else _json(body),
            content_type="application/json",
            headers=self.headers | headers,
        )

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
