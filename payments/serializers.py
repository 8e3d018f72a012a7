"""What the API of payments reads and writes."""

from __future__ import annotations

from rest_framework import serializers

from payments.models import PaymentMethod

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


class AddMethodSerializer(serializers.Serializer[object]):
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


class RefusalSerializer(serializers.Serializer[object]):
    """Why it was not done, and what helps."""

    detail = serializers.CharField()
