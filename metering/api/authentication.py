from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from structlog.contextvars import bind_contextvars

from metering.bearer_keys import SCHEME, bearer_key
from metering.keys import authenticate_metering_key
from metering.models import MeteringKey


@dataclass(frozen=True, slots=True)
class Runtime:
    """Who asks: the runtime that a valid key was given to. Stands where Django has its user."""

    name: str
    is_authenticated: bool = True


class MeteringKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sbx_meter_...`, a key of one host."""

    def authenticate(self, request: Request) -> tuple[Runtime, MeteringKey] | None:
        """Return who asks and the key's row; None without a key. Raises AuthenticationFailed."""
        if (key := bearer_key(request)) is None:
            return None
        row = authenticate_metering_key(key, now=datetime.now(UTC))
        if row is None:
            raise AuthenticationFailed("The metering key is not known or was revoked.")
        bind_contextvars(host_id=str(row.host_id))
        return Runtime(row.name), row

    def authenticate_header(self, request: Request) -> str:
        """Return the scheme, which makes a refusal a 401 rather than a 403."""
        del request
        return SCHEME


class HasScope(BasePermission):
    """The key has the scope that the view asks for as `scope`, and its host is active."""

    message = ""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether it may; `message` says why not."""
        key, scope = key_of(request), str(getattr(view, "scope"))  # noqa: B009 - of our views only
        if scope not in key.scopes:
            self.message = f"The key lacks the scope {scope}. Have one issued that has it."
            return False
        if not key.host.is_active:
            self.message = f"The key's host {key.host} is not active. Make it active in the admin."
            return False
        return True


def key_of(request: Request) -> MeteringKey:
    """Return the row of the key that a request showed. Raises NotAuthenticated."""
    if not isinstance(request.auth, MeteringKey):
        raise NotAuthenticated
    return request.auth


class MeteringKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document describes the key."""

    target_class = "metering.api.authentication.MeteringKeyAuthentication"
    name = "meteringKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the security scheme object."""
        del auto_schema
        return {"type": "http", "scheme": "bearer", "bearerFormat": "sbx_meter_..."}
