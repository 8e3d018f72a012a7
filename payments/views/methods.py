from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound, Throttled, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from payments.models import PaymentMethod
from payments.serializers import (
    AddingSerializer,
    AddMethodSerializer,
    PaymentMethodSerializer,
)
from payments.services.method_changes import (
    MethodRefusedError,
    NoSuchMethodError,
    TooManySetupsError,
    begin_adding,
    choose_default,
    finish_adding,
    portal_url,
    remove_method,
)
from payments.tasks import hurry_account
from payments.views.asking import ConflictError, ProviderView


class PaymentMethods(ProviderView):
    """What the account can be charged on."""

    @extend_schema(operation_id="payment_methods", responses=PaymentMethodSerializer(many=True))
    def get(self, request: Request) -> Response:
        """Return the account's payment methods, the default one first."""
        return Response(_listed(self.account_id))

    @extend_schema(
        operation_id="payment_method_add",
        request=AddMethodSerializer,
        responses={
            200: PaymentMethodSerializer(many=True),
            201: AddingSerializer,
        },
    )
    def post(self, request: Request) -> Response:
        """Begin adding a payment method (201), or show one that the customer has confirmed (200).

        Card numbers go from the customer's browser to Stripe, and never to us.
        """
        account_id, now = self.account_id, datetime.now(UTC)
        asked = AddMethodSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            if confirmed := asked.validated_data.get("setup_intent"):
                finish_adding(account_id, confirmed, now=now)
                hurry_account(account_id)
                return Response(_listed(account_id))
            adding = _begin(account_id, asked.validated_data, now=now)
        except NoSuchMethodError:
            raise NotFound("There is no such setup intent.") from None
        except TooManySetupsError:
            raise Throttled(wait=60 * 60) from None
        return Response(AddingSerializer(adding).data, status=status.HTTP_201_CREATED)


class PaymentMethodDetail(ProviderView):
    """One payment method. Another account's is not found."""

    @extend_schema(
        operation_id="payment_method_remove",
        responses={
            204: None,
        },
    )
    def delete(self, request: Request, pk: int) -> Response:
        """Remove a payment method; not the only one while an invoice is not paid."""
        try:
            remove_method(self.account_id, pk, now=datetime.now(UTC))
        except NoSuchMethodError:
            raise NotFound from None
        except MethodRefusedError as error:
            raise ConflictError(str(error)) from None
        return Response(status=status.HTTP_204_NO_CONTENT)


class DefaultPaymentMethod(ProviderView):
    """What is charged from now on. Another account's payment method is not found."""

    @extend_schema(
        operation_id="payment_method_make_default",
        request=None,
        responses={
            200: PaymentMethodSerializer,
        },
    )
    def post(self, request: Request, pk: int) -> Response:
        """Charge this payment method from now on."""
        try:
            method = choose_default(self.account_id, pk, now=datetime.now(UTC))
            hurry_account(method.account_id)
        except NoSuchMethodError:
            raise NotFound from None
        except MethodRefusedError as error:
            raise ConflictError(str(error)) from None
        return Response(PaymentMethodSerializer(method).data)


def _begin(account_id: UUID, asked: dict[str, str], *, now: datetime) -> dict[str, str | None]:
    """Begin to add a payment method by the flow asked for. Raises ValidationError."""
    adding: dict[str, str | None] = dict.fromkeys(("setup_intent", "client_secret", "portal_url"))
    if asked["flow"] == "portal":
        try:
            adding["portal_url"] = portal_url(
                account_id, return_url=asked.get("return_url", ""), now=now
            )
        except MethodRefusedError as error:
            raise ValidationError({"return_url": [str(error)]}) from None
        return adding
    try:
        intent = begin_adding(account_id, now=now)
    except MethodRefusedError as error:
        raise ConflictError(str(error)) from None
    adding["setup_intent"], adding["client_secret"] = intent.id, intent.client_secret
    return adding


def _listed(account_id: UUID) -> object:
    methods = PaymentMethod.objects.filter(account=account_id, removed_at__isnull=True)
    return PaymentMethodSerializer(methods, many=True).data
