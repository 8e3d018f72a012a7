"""What every view of a customer's things has: the account, what it takes, and how it answers."""

from __future__ import annotations

from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db.models import Model
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.acting import acting
from billing.api.callers import Caller, Scope, caller_of
from billing.api.idempotency import TRANSACTION, idempotent
from billing.api.pages import Pages
from billing.api.problems import Problem
from billing.api.throttles import headers_of

M = TypeVar("M", bound=Model)


class AccountView(APIView):
    """A view of things of the caller's account.

    `needs`: the scope it takes, or one by method (default: read to read, else write).
    `query_serializer`: reads the query parameters; others are refused.
    `idempotency`: whether a POST and its record share a transaction, or the record is claimed.
    `secrets_once`: fields of an answer that a replay does not show again.
    """

    needs: ClassVar[Scope | dict[str, Scope] | None] = None
    query_serializer: ClassVar[type[serializers.BaseSerializer[Any]] | None] = None
    idempotency: ClassVar[str] = TRANSACTION
    secrets_once: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "post" in vars(cls):
            # Here, so that no view can go without.
            cls.post = idempotent(cls.post)  # type: ignore[attr-defined]  # looked up above

    @property
    def caller(self) -> Caller:
        """Who calls. Raises NotAuthenticated."""
        return caller_of(self.request)

    @property
    def account_id(self) -> UUID:
        """Whose things these are. Raises NotAuthenticated."""
        return self.caller.account_id

    def query(self) -> dict[str, Any]:
        """Return the query parameters, read. Raises ValidationError."""
        if self.query_serializer is None:
            return {}
        asked = self.query_serializer(data=self.request.query_params, context=self.query_context())
        asked.is_valid(raise_exception=True)
        return dict(asked.validated_data)

    def query_context(self) -> dict[str, Any]:
        """Return what the query's serializer is to know beside the parameters."""
        return {}

    def query_parameters(self) -> set[str]:
        """Return the names of the query parameters that are read."""
        if self.query_serializer is None:
            return set()
        return set(self.query_serializer().fields)  # type: ignore[attr-defined]  # of all of ours

    def dispatch(self, request: HttpRequest, *args: Any, **path: Any) -> HttpResponseBase:
        """Answer; what the caller changes stands in the audit trail under their key."""
        with ExitStack() as self._acting:
            return super().dispatch(request, *args, **path)

    def initial(self, request: Request, *args: Any, **path: Any) -> None:
        """Refuse who may not, and parameters that are not read."""
        super().initial(request, *args, **path)
        key = self.caller.key
        # A member is known by their session, before any view.
        if key and request.method not in SAFE_METHODS:
            self._acting.enter_context(acting(api_key_id=key.pk))
        unknown = set(request.query_params) - self.query_parameters()
        if unknown:
            names = ", ".join(sorted(unknown))[:100]
            detail = f"{names}: it is not read here. {_known(self.query_parameters())}"
            raise Problem(HTTPStatus.BAD_REQUEST, "unknown_parameter", detail)

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **path: Any
    ) -> Response:
        """Return the response, to be asked for again each time, and by nobody else kept."""
        response = super().finalize_response(request, response, *args, **path)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        for name, value in headers_of(getattr(request, "rate_limits", [])).items():
            response.headers[name] = value
        return response


class AccountListView(AccountView, ListAPIView[M]):
    """A list by pages in the view's `ordering`; `filterset_class` says what narrows it."""

    pagination_class = Pages
    ordering: ClassVar[tuple[str, ...]] = ("-created_at", "-id")
    filterset_class: ClassVar[Any] = None

    def query_parameters(self) -> set[str]:
        """Return the names of the query parameters that are read."""
        own = super().query_parameters()
        if self.pagination_class is not None:
            own |= {self.pagination_class.cursor_query_param, Pages.page_size_query_param}
        if self.filterset_class is not None:
            own |= set(self.filterset_class.base_filters)
        return own


class AccountObjectView(AccountView, RetrieveAPIView[M]):
    """One row. `get_queryset` begins at the account, so that another's is not found."""


def _known(names: set[str]) -> str:
    return f"Use {', '.join(sorted(names))}." if names else "There are no parameters."
