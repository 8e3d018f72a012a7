from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.credit_balances import GrantLeft
from billing.credits import CreditKind
from billing.models import CreditEntry, CreditGrant
from billing.serializers.fields import AmountField, MoneyField


class CreditExpirySerializer(serializers.Serializer[Any]):
    """So much is gone at that moment, unless it is used before."""

    at = serializers.DateTimeField(read_only=True)
    amount = MoneyField()


class CreditsByKindSerializer(serializers.Serializer[Any]):
    """What is left of each kind."""

    monthly = MoneyField(help_text="Comes with the plan and pays the usage of its period.")
    promotional = MoneyField(help_text="Pays usage.")
    prepaid = MoneyField(help_text="Was bought; pays what is left, fee and tax included.")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return each kind's balance."""
        return super().to_representation({kind.value: instance[kind] for kind in CreditKind})


class CreditGrantSerializer(serializers.ModelSerializer[CreditGrant]):
    """Where credit came from, and when it pays: for periods that touch that span."""

    kind = serializers.CharField(read_only=True, help_text="monthly, promotional or prepaid")

    class Meta:
        model = CreditGrant
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "reason",
            "priority",
            "effective_at",
            "expires_at",
            "granted_at",
        )
        read_only_fields: tuple[str, ...] = fields


class GrantLeftSerializer(CreditGrantSerializer):
    """A grant with what it gave, and what is left of it."""

    granted = MoneyField()
    balance = MoneyField()

    class Meta(CreditGrantSerializer.Meta):
        fields = (*CreditGrantSerializer.Meta.fields, "granted", "balance")
        read_only_fields = fields

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the grant's columns and the two amounts."""
        left: GrantLeft = instance
        shown = CreditGrantSerializer(left.grant).data
        return {**shown, "granted": left.granted.text, "balance": left.balance.text}


class CreditsSerializer(serializers.Serializer[Any]):
    """The credit that is not used and has not expired; also what takes effect later."""

    currency = serializers.CharField(read_only=True)
    balance = MoneyField()
    by_kind = CreditsByKindSerializer(read_only=True)
    expiries = CreditExpirySerializer(many=True, read_only=True, help_text="The soonest 100.")
    grants = GrantLeftSerializer(
        many=True, read_only=True, help_text="With something left: the 100 that expire soonest."
    )
    is_complete = serializers.BooleanField(
        read_only=True, help_text="False: there are more expiries or grants than are listed."
    )


class CreditEntrySerializer(serializers.ModelSerializer[CreditEntry]):
    """A line of the ledger: above zero for credit that comes, below for credit that goes."""

    kind = serializers.CharField(
        read_only=True,
        help_text="grant, use, expire, revoke, refund, restore, late_use, return or take_back",
    )
    currency = serializers.CharField(read_only=True)
    amount = AmountField()
    grant = serializers.IntegerField(source="grant_id", read_only=True)
    grant_kind = serializers.CharField(source="grant.kind", read_only=True)
    invoice = serializers.IntegerField(
        source="invoice_id",
        read_only=True,
        allow_null=True,
        help_text="The id of the invoice that it paid, or was given back by.",
    )
    invoice_number = serializers.CharField(
        source="invoice.number", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = CreditEntry
        fields = (
            "id",
            "recorded_at",
            "kind",
            "amount",
            "currency",
            "grant",
            "grant_kind",
            "invoice",
            "invoice_number",
            "reason",
        )
        read_only_fields = fields
