from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.views import AccountView
from payments.dunning_queries import payment_state, standing_of
from payments.serializers import InvoicePaymentSerializer, StandingSerializer


class InvoicePayment(AccountView):
    """How it stands with the payment of an invoice. Another account's invoice is not found."""

    @extend_schema(operation_id="invoice_payment", responses=InvoicePaymentSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Return what is owed, what became of the last try, and where it can be paid."""
        state = payment_state(self.account_id, pk)
        if state is None:
            raise NotFound
        return Response(InvoicePaymentSerializer(state).data)


class Standing(AccountView):
    """How the account stands with us."""

    @extend_schema(operation_id="standing", responses=StandingSerializer)
    def get(self, request: Request) -> Response:
        """Return whether the account is active, past due or suspended, and what it owes."""
        return Response(StandingSerializer(standing_of(self.account_id)).data)
