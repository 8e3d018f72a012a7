from __future__ import annotations

from rest_framework import serializers

from billing.models import CreditNote
from billing.serializers.fields import AmountField


class CreditNoteOfInvoiceSerializer(serializers.ModelSerializer[CreditNote]):
    """A credit note, as its invoice names it."""

    total = AmountField()

    class Meta:
        model = CreditNote
        fields = ("id", "number", "issued_on", "total")
        read_only_fields = fields


class CreditNoteSerializer(serializers.ModelSerializer[CreditNote]):
    """What is taken back of an invoice: total = net + tax = off_due + as_credit."""

    invoice = serializers.IntegerField(
        source="invoice_id", read_only=True, help_text="The id of the invoice it corrects."
    )
    invoice_number = serializers.CharField(source="invoice.number", read_only=True)
    net = AmountField()
    tax = AmountField()
    total = AmountField()
    off_due = AmountField(help_text="So much less is owed of the invoice.")
    as_credit = AmountField(help_text="So much became prepaid credit.")

    class Meta:
        model = CreditNote
        fields = (
            "id",
            "number",
            "invoice",
            "invoice_number",
            "reason",
            "issued_on",
            "currency",
            "net",
            "tax",
            "total",
            "off_due",
            "as_credit",
        )
        read_only_fields = fields
