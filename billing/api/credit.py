"""An account's credit: what there is, when it is gone, and every entry of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.filters import CreditEntryFilter
from billing.api.views import AccountListView, AccountView
from billing.credit_balances import credit_balances, entries_of
from billing.models import CreditEntry
from billing.serializers.credits import CreditEntrySerializer, CreditsSerializer


class Credits(AccountView):
    """What credit the account has."""

    @extend_schema(
        operation_id="credits",
        responses=CreditsSerializer,
        examples=[
            OpenApiExample(
                "Of a plan, and a gift",
                value={
                    "currency": "USD",
                    "balance": "104.60",
                    "by_kind": {"monthly": "99.60", "promotional": "5.00", "prepaid": "0.00"},
                    "expiries": [{"at": "2026-12-01T00:00:00Z", "amount": "99.60"}],
                    "grants": [
                        {
                            "id": 12,
                            "kind": "promotional",
                            "reason": "Welcome",
                            "priority": 0,
                            "effective_at": "2026-11-01T00:00:00Z",
                            "expires_at": None,
                            "granted_at": "2026-11-01T00:00:00Z",
                            "granted": "5.00",
                            "balance": "5.00",
                        }
                    ],
                    "is_complete": True,
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        """Return the balance, by kind and by grant, and what of it expires when.

        What the running period has used is taken off when its invoice becomes final; until then
        `usage/current` says what will be left.
        """
        del request
        balances = credit_balances(self.account_id, now=datetime.now(UTC))
        return Response(CreditsSerializer(balances).data)


class CreditEntries(AccountListView[CreditEntry]):
    """The account's credit ledger."""

    serializer_class = CreditEntrySerializer
    ordering = ("-recorded_at", "-id")
    filterset_class = CreditEntryFilter
    queryset = CreditEntry.objects.none()

    def get_queryset(self) -> QuerySet[CreditEntry]:
        """Return the entries of the caller's account and of no other."""
        return entries_of(self.account_id)

    @extend_schema(
        operation_id="credit_entries",
        responses=CreditEntrySerializer(many=True),
        examples=[
            OpenApiExample(
                "Used",
                value={
                    "id": 40,
                    "recorded_at": "2026-12-01T00:15:00Z",
                    "kind": "use",
                    "amount": "-0.40",
                    "currency": "USD",
                    "grant": 12,
                    "grant_kind": "promotional",
                    "invoice": 7,
                    "invoice_number": "2026-000007",
                    "reason": "",
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the entries, the newest first. They sum to the balance, with what expired."""
        return super().get(request, *args, **path)
