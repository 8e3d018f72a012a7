"""An account's keys to the API. What a key is stands in the answer to its making, and never again.

Nobody makes a key that may do more than they may themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.callers import Caller, Scope
from billing.api.problems import Problem, field_problem
from billing.api.views import AccountListView, AccountView
from billing.models import ApiKey
from billing.serializers.api_keys import (
    ApiKeySerializer,
    IssuedApiKeySerializer,
    NewApiKeySerializer,
    RotationSerializer,
)
from billing.services import (
    AccountClosingError,
    ApiKeyRefusedError,
    IssuedApiKey,
    NoSuchApiKeyError,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)

# What the service calls its argument, where the API calls the field otherwise.
_FIELDS = {"overlap": "overlap_hours"}


class ApiKeys(AccountListView[ApiKey]):
    """The account's keys, also those that work no longer."""

    needs = Scope.ADMIN
    secrets_once = ("key",)
    serializer_class = ApiKeySerializer
    queryset = ApiKey.objects.none()

    def get_queryset(self) -> QuerySet[ApiKey]:
        """Return the keys of the caller's account and of no other."""
        return ApiKey.objects.filter(account=self.account_id)

    @extend_schema(operation_id="api_keys", responses=ApiKeySerializer(many=True))
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the account's keys, the newest first."""
        return super().get(request, *args, **path)

    @extend_schema(
        operation_id="api_key_create",
        request=NewApiKeySerializer,
        responses={201: IssuedApiKeySerializer},
        examples=[
            OpenApiExample(
                "A key of a year",
                value={
                    "name": "Accounting",
                    "scopes": ["read"],
                    "expires_at": "2027-11-01T00:00:00Z",
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Make a key with scopes that the caller has too. `key` is shown this once."""
        asked = NewApiKeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        _refuse_more(self.caller, asked.validated_data["scopes"])
        try:
            issued = issue_api_key(self.account_id, now=datetime.now(UTC), **asked.validated_data)
        except ApiKeyRefusedError as refusal:
            raise _problem_of(refusal) from None
        except AccountClosingError as error:
            raise Problem(HTTPStatus.CONFLICT, "account_closed", str(error)) from None
        return _shown_once(issued)


class ApiKeyRotation(AccountView):
    """Takes a new key in place of one."""

    needs = Scope.ADMIN
    secrets_once = ("key",)

    @extend_schema(
        operation_id="api_key_rotate",
        request=RotationSerializer,
        responses={201: IssuedApiKeySerializer},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Make a key that may do the same; the old one works for `overlap_hours` beside it."""
        asked = RotationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        _refuse_more(self.caller, _key_of(self, pk).scopes)
        overlap = timedelta(hours=asked.validated_data["overlap_hours"])
        try:
            issued = rotate_api_key(self.account_id, pk, overlap=overlap, now=datetime.now(UTC))
        except NoSuchApiKeyError:
            raise Problem(
                HTTPStatus.CONFLICT, "conflict", "The key works no longer. Make another."
            ) from None
        except ApiKeyRefusedError as refusal:
            raise _problem_of(refusal) from None
        except AccountClosingError as error:
            raise Problem(HTTPStatus.CONFLICT, "account_closed", str(error)) from None
        return _shown_once(issued)


class ApiKeyDetail(AccountView):
    """One key. Another account's is not found."""

    needs = Scope.ADMIN

    @extend_schema(operation_id="api_key_revoke", responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Refuse the key from now on. Safe to repeat."""
        revoke_api_key(_key_of(self, pk).pk, now=datetime.now(UTC))
        return Response(status=HTTPStatus.NO_CONTENT)


def _key_of(view: AccountView, pk: int) -> ApiKey:
    """Return a key of the caller's account. Raises NotFound."""
    key = ApiKey.objects.filter(pk=pk, account=view.account_id).first()
    if key is None:
        raise NotFound
    return key


def _refuse_more(caller: Caller, scopes: Iterable[str]) -> None:
    """Raise Problem when a key with these scopes may do what the caller may not."""
    if more := sorted(set(scopes) - caller.scopes):
        detail = f"scopes: you lack {', '.join(more)}, which the key would have."
        raise Problem(HTTPStatus.FORBIDDEN, "scope_missing", detail)


def _problem_of(refusal: ApiKeyRefusedError) -> Exception:
    return field_problem(_FIELDS.get(refusal.field, refusal.field), str(refusal))


def _shown_once(issued: IssuedApiKey) -> Response:
    body = {**ApiKeySerializer(issued.row).data, "key": issued.key}
    return Response(body, HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})
