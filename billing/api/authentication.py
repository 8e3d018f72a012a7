from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.contrib.auth.models import User
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from billing.api.callers import Caller, key_caller, member_caller, membership_of
from billing.services.api_keys import KeyExpiredError, TestKeyError, authenticate_api_key
from metering.bearer_keys import SCHEME, bearer_key


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whoever shows a valid key of an account. Stands where Django has its user."""

    account_id: UUID
    is_authenticated: bool = True


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sbx_live_...`, a key of one account."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, Caller] | None:
        """Return the key's holder and caller; None without a key. Raises AuthenticationFailed."""
        if (key := bearer_key(request)) is None:
            return None
        try:
            row = authenticate_api_key(key, now=datetime.now(UTC))
        except KeyExpiredError:
            raise AuthenticationFailed(
                "The API key has expired. Rotate it, or make another.", code="key_expired"
            ) from None
        except TestKeyError:
            raise AuthenticationFailed(
                "The API key is for trying things out, and money is real here. Make a live one.",
                code="key_of_test_mode",
            ) from None
        if row is None:
            raise AuthenticationFailed(
                "The API key is not known or was revoked.", code="key_unknown"
            )
        return KeyHolder(row.account_id), key_caller(row)

    def authenticate_header(self, request: Request) -> str:
        """Return the scheme, which makes a refusal a 401 rather than a 403."""
        del request
        return SCHEME


class MemberAuthentication(SessionAuthentication):
    """A member of an account who is signed in to its page. Writing takes the CSRF token."""

    def authenticate(self, request: Request) -> tuple[User, Caller] | None:
        """Return the user and caller; None when nobody is signed in. Raises PermissionDenied."""
        if bearer_key(request) is not None:
            # A key that was refused is not made up for by a session.
            return None
        signed_in = super().authenticate(request)
        if signed_in is None:
            return None
        user = signed_in[0]
        membership = membership_of(user, request.session)
        if membership is None:
            raise PermissionDenied("You are not a member of any account.", code="no_account")
        return user, member_caller(membership, user)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document describes the key."""

    target_class = "billing.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the security scheme object."""
        del auto_schema
        return {"type": "http", "scheme": "bearer", "bearerFormat": "sbx_live_..."}


class MemberScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document describes the session."""

    target_class = "billing.api.authentication.MemberAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the security scheme object."""
        del auto_schema
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}
