from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.serializers import StrictSerializer
from billing.models import Account, AccountClosing, Invitation, Membership
from billing.serializers.fields import AmountOrNullField, AmountTextField, ExactField
from billing.services.account_details import (
    LONGEST_ADDRESS,
    LONGEST_EMAIL,
    LONGEST_NAME,
    LONGEST_TAX_ID,
)
from billing.services.invitations import LONGEST_USERNAME


class NextCycleSerializer(serializers.Serializer[Account]):
    """What is to bound the account's periods, and from which moment on."""

    time_zone = serializers.CharField(source="next_time_zone", read_only=True)
    anchor_day = serializers.IntegerField(source="next_anchor_day", read_only=True)
    starts_at = serializers.DateTimeField(source="cycle_changes_at", read_only=True)


class AutomaticTopUpSerializer(serializers.Serializer[Account]):
    """With less prepaid credit than the threshold, the amount is asked for."""

    threshold = AmountOrNullField(source="top_up_threshold")
    amount = AmountOrNullField(source="top_up_amount")


class ClosingSerializer(serializers.Serializer[AccountClosing]):
    """An account that is being closed, or is."""

    asked_at = serializers.DateTimeField(read_only=True)
    reason = serializers.CharField(read_only=True)
    ends_at = serializers.DateTimeField(
        source="account.ends_at",
        read_only=True,
        allow_null=True,
        help_text="When the last period ends. Null: sandboxes run.",
    )
    closed_at = serializers.DateTimeField(
        source="account.closed_at",
        read_only=True,
        allow_null=True,
        help_text="When all was settled. Null: it is not yet.",
    )
    waiting_for = serializers.CharField(read_only=True, help_text="What is in the way, if any.")


class AccountSerializer(serializers.ModelSerializer[Account]):
    """Who pays: what its invoices print, and what bounds its periods."""

    # Empty: none, which is no address.
    billing_email = serializers.CharField(read_only=True)
    tax_rate = ExactField(help_text="A fraction, 0.19 for 19 %.")
    next_cycle = serializers.SerializerMethodField(help_text="Null: it stays as it is.")
    automatic_top_up = serializers.SerializerMethodField(help_text="Null: never.")
    closing = serializers.SerializerMethodField(help_text="Null: nobody asked to close it.")

    class Meta:
        model = Account
        fields = (
            "id",
            "name",
            "address",
            "tax_id",
            "billing_email",
            "currency",
            "tax_rate",
            "tax_is_inclusive",
            "time_zone",
            "anchor_day",
            "next_cycle",
            "automatic_top_up",
            "opened_at",
            "closing",
        )
        read_only_fields = fields

    @extend_schema_field(NextCycleSerializer(allow_null=True))
    def get_next_cycle(self, account: Account) -> Any:
        """Return what is to bound the periods; null without a change to come."""
        return NextCycleSerializer(account).data if account.cycle_changes_at else None

    @extend_schema_field(AutomaticTopUpSerializer(allow_null=True))
    def get_automatic_top_up(self, account: Account) -> Any:
        """Return when how much is asked for; null where nothing is."""
        if account.top_up_threshold is None:
            return None
        return AutomaticTopUpSerializer(account).data

    @extend_schema_field(ClosingSerializer(allow_null=True))
    def get_closing(self, account: Account) -> Any:
        """Return how far closing is; null where nobody asked."""
        closing = getattr(account, "closing", None)
        return None if closing is None else ClosingSerializer(closing).data


class TopUpRuleSerializer(StrictSerializer[Any]):
    """When prepaid credit is to be asked for by itself, and how much."""

    threshold = AmountTextField()
    amount = AmountTextField()


class AccountChangeSerializer(StrictSerializer[Any]):
    """What is to be different of the account. Empty: none."""

    name = serializers.CharField(max_length=LONGEST_NAME, required=False)
    address = serializers.CharField(
        max_length=LONGEST_ADDRESS, required=False, allow_blank=True, help_text="Line by line."
    )
    tax_id = serializers.CharField(max_length=LONGEST_TAX_ID, required=False, allow_blank=True)
    billing_email = serializers.EmailField(
        max_length=LONGEST_EMAIL, required=False, allow_blank=True
    )
    time_zone = serializers.CharField(
        max_length=64, required=False, help_text="IANA name; from the next period on."
    )
    automatic_top_up = TopUpRuleSerializer(
        required=False, allow_null=True, help_text="Null: none is bought by itself."
    )


class CloseSerializer(StrictSerializer[Any]):
    """How an account is to be closed."""

    reason = serializers.CharField(max_length=200, required=False, allow_blank=True)
    stop_sandboxes = serializers.BooleanField(
        default=False, help_text="Have what runs stopped; else it is in the way."
    )


class MemberSerializer(serializers.ModelSerializer[Membership]):
    """A member of the account."""

    name = serializers.SerializerMethodField()
    email = serializers.CharField(source="user.email", read_only=True)

    class Meta:
        model = Membership
        fields = ("id", "name", "email", "role")
        read_only_fields = fields

    def get_name(self, member: Membership) -> str:
        """Return what they are called."""
        return member.user.get_full_name() or member.user.get_username()


class RoleSerializer(StrictSerializer[Any]):
    """What a member becomes."""

    role = serializers.ChoiceField(choices=Membership.Role.choices)


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    """An address that is asked to become a member. Its token is in the e-mail alone."""

    class Meta:
        model = Invitation
        fields = ("id", "email", "role", "invited_at", "expires_at")
        read_only_fields = fields


class NewInvitationSerializer(StrictSerializer[Any]):
    """Who is asked, to become what."""

    email = serializers.EmailField(max_length=LONGEST_USERNAME)
    role = serializers.ChoiceField(choices=Membership.Role.choices)
