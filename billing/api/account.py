"""The account itself: what its invoices print, how credit is bought, and closing it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.callers import Scope
from billing.api.problems import Problem, conflict, field_problem
from billing.api.views import AccountView
from billing.models import Account
from billing.serializers.accounts import (
    AccountChangeSerializer,
    AccountSerializer,
    CloseSerializer,
)
from billing.services import (
    AccountChange,
    AccountClosingError,
    AccountRefusedError,
    AutomaticTopUp,
    ClosingRefusedError,
    DetailRefusedError,
    SandboxesRunError,
    TopUpRefusedError,
    UnknownTimeZoneError,
    UnpaidError,
    change_account,
    close_account,
)

_SHOWN: dict[str, Any] = {
    "id": "7f0a4f0e-6c55-4d58-9a43-4f9c3b1c6d0e",
    "name": "Ada Ltd",
    "address": "1 Analytical Row\nLondon",
    "tax_id": "GB123456789",
    "billing_email": "billing@example.com",
    "currency": "USD",
    "tax_rate": "0.19",
    "tax_is_inclusive": False,
    "time_zone": "Europe/London",
    "anchor_day": 1,
    "next_cycle": None,
    "automatic_top_up": {"threshold": "20.00", "amount": "100.00"},
    "opened_at": "2026-05-01T00:00:00Z",
    "closing": None,
}
_OPEN = OpenApiExample("An account", value=_SHOWN, response_only=True)


class AccountDetail(AccountView):
    """The caller's account."""

    needs = {"GET": Scope.READ, "PATCH": Scope.ADMIN}

    @extend_schema(operation_id="account", responses=AccountSerializer, examples=[_OPEN])
    def get(self, request: Request) -> Response:
        """Return the account."""
        del request
        return Response(_shown(self))

    @extend_schema(
        operation_id="account_change",
        request=AccountChangeSerializer,
        responses=AccountSerializer,
        examples=[
            OpenApiExample(
                "What invoices print",
                value={"name": "Ada Ltd", "tax_id": "GB123456789"},
                request_only=True,
            ),
            OpenApiExample(
                "Credit that buys itself",
                value={"automatic_top_up": {"threshold": "20.00", "amount": "100.00"}},
                request_only=True,
            ),
            _OPEN,
        ],
    )
    def patch(self, request: Request) -> Response:
        """Change all that is given, or nothing. Invoices print it from the next one on."""
        asked = AccountChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        said = dict(asked.validated_data)
        if "automatic_top_up" in said:
            rule = said.pop("automatic_top_up") or {"threshold": None, "amount": None}
            said["automatic_top_up"] = AutomaticTopUp(**rule)
        change = AccountChange(**said)
        _refused_in_words(lambda: change_account(self.account_id, change, now=datetime.now(UTC)))
        return Response(_shown(self))


class AccountClose(AccountView):
    """Closes the account."""

    needs = Scope.ADMIN

    @extend_schema(
        operation_id="account_close",
        request=CloseSerializer,
        responses={202: AccountSerializer},
        examples=[
            OpenApiExample(
                "With what runs",
                value={"reason": "We are done", "stop_sandboxes": True},
                request_only=True,
            ),
            OpenApiExample(
                "Being closed",
                value={
                    **_SHOWN,
                    "automatic_top_up": None,
                    "closing": {
                        "asked_at": "2026-11-10T12:00:00Z",
                        "reason": "We are done",
                        "ends_at": "2026-11-10T12:15:00Z",
                        "closed_at": None,
                        "waiting_for": "The last period is not invoiced yet.",
                    },
                },
                response_only=True,
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        """Begin to close the account; there is no way back. Safe to repeat.

        Nothing new begins in it, the last period is invoiced and paid, prepaid credit goes back,
        keys are revoked. `closing` says how far it is.
        """
        asked = CloseSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        user = self.caller.user
        _refused_in_words(
            lambda: close_account(
                self.account_id,
                user_id=user.pk if user else None,
                now=datetime.now(UTC),
                **asked.validated_data,
            )
        )
        return Response(_shown(self), HTTPStatus.ACCEPTED)


def _shown(view: AccountView) -> dict[str, Any]:
    account = Account.objects.select_related("closing").get(pk=view.account_id)
    return dict(AccountSerializer(account).data)


def _refused_in_words(do: Callable[[], Any]) -> Any:
    """Return what the service does. Raises Problem or ValidationError."""
    try:
        return do()
    except DetailRefusedError as refusal:
        raise field_problem(refusal.field, str(refusal)) from None
    except UnknownTimeZoneError:
        raise field_problem("time_zone", "Use an IANA time zone, as in Europe/Berlin.") from None
    except TopUpRefusedError as refusal:
        raise field_problem("automatic_top_up", str(refusal)) from None
    except AccountClosingError as error:
        raise Problem(HTTPStatus.CONFLICT, "account_closed", str(error)) from None
    except UnpaidError as refusal:
        raise Problem(HTTPStatus.CONFLICT, "invoice_unpaid", str(refusal)) from None
    except SandboxesRunError as refusal:
        raise Problem(HTTPStatus.CONFLICT, "sandboxes_run", str(refusal)) from None
    except (AccountRefusedError, ClosingRefusedError) as refusal:
        raise conflict(str(refusal)) from None
