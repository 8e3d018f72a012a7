"""What the API of payments reads and writes."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.money import Money
from billing.serializers.fields import DECIMAL_TEXT
from payments.failures import failure_words
from payments.models import PaymentAttempt, PaymentMethod

SETUP_INTENT_ID = r"^seti_[A-Za-z0-9_]{1,200}$"


class PaymentMethodSerializer(serializers.ModelSerializer[PaymentMethod]):
    """What can be charged. Of a card brand, last four digits and expiry are known, no more."""

    expires = serializers.SerializerMethodField(
        help_text="The month to the end of which it may be used, as in 2028-09; null: none."
    )

    class Meta:
        model = PaymentMethod
        fields = ("id", "kind", "brand", "last4", "expires", "is_default", "added_at")
        read_only_fields = fields

    def get_expires(self, method: PaymentMethod) -> str | None:
        """Return the year and month."""
        if method.expires_year is None:
            return None
        return f"{method.expires_year:04}-{method.expires_month:02}"


class AddMethodSerializer(StrictSerializer[object]):
    """How a payment method is to be added; or, with `setup_intent`, that it was confirmed."""

    flow = serializers.ChoiceField(
        ["setup_intent", "portal"],
        default="setup_intent",
        help_text="In your page with Stripe.js, or on a page of Stripe's.",
    )
    return_url = serializers.CharField(
        required=False,
        max_length=2000,
        help_text="Where Stripe's page leads back to: an address of this site.",
    )
    setup_intent = serializers.RegexField(
        SETUP_INTENT_ID,
        required=False,
        help_text="The one that the customer has confirmed: its payment method is shown at once.",
    )


class AddingSerializer(serializers.Serializer[object]):
    """What the customer adds a payment method with; what is null is of the other flow."""

    setup_intent = serializers.CharField(allow_null=True)
    client_secret = serializers.CharField(
        allow_null=True, help_text="For stripe.confirmCardSetup in the customer's browser."
    )
    portal_url = serializers.CharField(allow_null=True, help_text="It soon expires.")


@extend_schema_field(DECIMAL_TEXT)
class MoneyField(serializers.Field[Money, object, str, object]):
    """An amount in the account's currency, with the currency's decimals."""

    def to_representation(self, value: Money) -> str:
        """Return the decimal text."""
        return value.text


class AttemptSerializer(serializers.Serializer[PaymentAttempt]):
    """One try to have an invoice paid."""

    status = serializers.CharField(
        help_text="pending, unknown, processing, succeeded, failed, action_required or abandoned"
    )
    at = serializers.DateTimeField(source="started_at")
    failure = serializers.SerializerMethodField(help_text="Why it failed; null: it did not.")

    def get_failure(self, attempt: PaymentAttempt) -> str | None:
        """Return a sentence for the customer."""
        if attempt.status not in {attempt.Status.FAILED, attempt.Status.ACTION_REQUIRED}:
            return None
        return failure_words(attempt.failure_code, attempt.decline_code)


class InvoicePaymentSerializer(serializers.Serializer[object]):
    """How it stands with the payment of an invoice."""

    status = serializers.CharField(help_text="The invoice's own.")
    currency = serializers.CharField()
    owed = MoneyField()
    paid = MoneyField()
    last_attempt = AttemptSerializer(allow_null=True)
    next_try_at = serializers.DateTimeField(allow_null=True)
    suspends_at = serializers.DateTimeField(
        allow_null=True, help_text="The account's sandboxes are stopped then, unless it is paid."
    )
    payment_url = serializers.CharField(
        allow_null=True,
        help_text="Stripe's page, where the customer pays or confirms the payment; null: none.",
    )


class StandingSerializer(serializers.Serializer[object]):
    """How the account stands with us, and what it owes."""

    standing = serializers.CharField(help_text="active, past_due or suspended")
    since = serializers.DateTimeField(allow_null=True, help_text="null: from the beginning.")
    currency = serializers.CharField()
    owed = MoneyField()
