from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from billing.models import ApiKey
from billing.services import authenticate_api_key
from metering.bearer_keys import SCHEME, bearer_key


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who asks: the account of a valid key. Stands where Django has its user."""

    account_id: UUID
    is_authenticated: bool = True


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sbx_live_...`, a key of one account."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey] | None:
        """Return the key's holder and row; None without a key. Raises AuthenticationFailed."""
        if (key := bearer_key(request)) is None:
            return None
        row = authenticate_api_key(key, now=datetime.now(UTC))
        if row is None:
            raise AuthenticationFailed("The API key is not known or was revoked.")
        return KeyHolder(row.account_id), row

    def authenticate_header(self, request: Request) -> str:
        """Return the scheme, which makes a refusal a 401 rather than a 403."""
        del request
        return SCHEME


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document describes the key."""

    target_class = "billing.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the security scheme object."""
        del auto_schema
        return {"type": "http", "scheme": "bearer", "bearerFormat": "sbx_live_..."}
