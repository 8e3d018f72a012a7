"""Who may use the operator's routes: a program with an operator's key, and staff who look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib import admin
from django.contrib.auth.models import User
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView
from structlog.contextvars import bind_contextvars

from billing.models import OperatorKey
from billing.services import authenticate_operator_key
from metering.bearer_keys import SCHEME, bearer_key

SEES_REPORTS = "billing.view_invoice"
"""The right that shows reports to staff."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks: the name of a valid operator's key. Stands where Django has its user."""

    name: str
    key_id: int
    is_authenticated: bool = True

    def __str__(self) -> str:
        return f"operator key {self.name}"


class OperatorKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sbx_op_...`. `request.user` is an Operator, `request.auth` the row."""

    def authenticate(self, request: Request) -> tuple[Operator, OperatorKey] | None:
        """Return who asks and the key's row; None without a key. Raises AuthenticationFailed."""
        if (key := bearer_key(request)) is None:
            return None
        row = authenticate_operator_key(key, now=datetime.now(UTC))
        if row is None:
            raise AuthenticationFailed("The operator key is not known or was revoked.")
        bind_contextvars(operator=row.name)
        return Operator(row.name, row.pk), row

    def authenticate_header(self, request: Request) -> str:
        """Return the scheme, which makes a refusal a 401 rather than a 403."""
        del request
        return SCHEME


class IsOperator(BasePermission):
    """An operator's key was shown."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether it was."""
        del view
        return isinstance(request.auth, OperatorKey)


class IsOperatorOrLooks(IsOperator):
    """An operator's key, or somebody signed in to the admin who may see reports and only reads.

    For views that also have DRF's SessionAuthentication.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether it is one of them."""
        if super().has_permission(request, view):
            return True
        # The admin's own question, so that whatever it asks of staff is asked here too.
        return (
            request.method in SAFE_METHODS
            and isinstance(request.user, User)
            and admin.site.has_permission(request._request)  # noqa: SLF001 - DRF's way to Django's
            and request.user.has_perm(SEES_REPORTS)
        )
