from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from billing.api.callers import Caller, Scope

if TYPE_CHECKING:
    # Views read in their settings which permission they have, so they cannot be imported first.
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """The caller has the scope that the view's `needs` asks for.

    `needs` is a scope, or one by method; without it reading takes `read`, and all else `write`.
    """

    code = "scope_missing"
    message = ""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller may; `message` says why not."""
        caller = request.auth
        if not isinstance(caller, Caller):
            # DRF makes a 401 of it, since nobody is authenticated.
            return False
        method = str(request.method)
        if not hasattr(view, method.lower()):
            # The answer is that there is no such method, whoever asks.
            return True
        scope = scope_of(view, method)
        if caller.may(scope):
            return True
        who = "Your role" if caller.user else "The API key"
        self.message = f"{who} lacks the scope {scope}, which this takes."
        return False


def scope_of(view: APIView | type[APIView], method: str) -> str:
    """Return the scope that the view asks for a method."""
    needs = getattr(view, "needs", None)
    scope = needs.get(method) if isinstance(needs, dict) else needs
    return scope or (Scope.READ if method in SAFE_METHODS else Scope.WRITE)
