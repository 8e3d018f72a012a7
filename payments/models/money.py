"""Money that came, what it paid, and what of it went back. The ledger of payments."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from billing.models import Account, CreditGrant, Invoice, TopUp
from billing.models.columns import amount_column, currency_column, has_known_currency
from payments.models.collecting import Collection


def _user() -> models.ForeignKey[Any, Any]:
    return models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
    )


class Payment(models.Model):
    """Money that an account paid. Append-only, as are its allocations, whose sum it is."""

    class Method(models.TextChoices):
        PROVIDER = "provider"
        # A bank transfer, a cheque: what staff saw arrive.
        OFFLINE = "offline"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="payments")
    method = models.CharField(max_length=16, choices=Method)
    amount = amount_column()
    currency = currency_column()
    received_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    # Of the provider's: its payment and the charge of it, and what was collected with it.
    provider_id = models.CharField(max_length=100, null=True, blank=True, unique=True)
    charge_id = models.CharField(max_length=100, blank=True, default="")
    collection = models.ForeignKey(
        Collection, on_delete=models.PROTECT, null=True, blank=True, related_name="payments"
    )
    # Of one that staff recorded: the bank's reference, under which it is recorded once, and who.
    reference = models.CharField(max_length=100, blank=True, default="")
    recorded_by = _user()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(condition=Q(amount__gt=0), name="payment_is_above_0"),
            models.CheckConstraint(
                condition=Q(method="provider", provider_id__isnull=False, reference="")
                | (Q(method="offline", provider_id__isnull=True) & ~Q(reference="")),
                name="payment_has_the_providers_id_or_a_reference",
            ),
            models.UniqueConstraint(
                fields=["account", "reference"],
                condition=~Q(reference=""),
                name="offline_payment_is_recorded_once_under_a_reference",
            ),
            has_known_currency("payment_currency_is_one_of_iso_4217"),
        )
        indexes = (models.Index(fields=["received_at"], name="payments_by_arrival"),)

    def __str__(self) -> str:
        return self.provider_id or self.reference


class Allocation(models.Model):
    """What a part of a payment paid: an invoice, a top-up, or credit for what was too much."""

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="allocations")
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="allocations"
    )
    top_up = models.ForeignKey(
        TopUp, on_delete=models.PROTECT, null=True, blank=True, related_name="allocations"
    )
    credit_grant = models.ForeignKey(
        CreditGrant, on_delete=models.PROTECT, null=True, blank=True, related_name="allocations"
    )
    amount = amount_column()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(condition=Q(amount__gt=0), name="allocation_is_above_0"),
            models.CheckConstraint(
                condition=Q(invoice__isnull=False, top_up__isnull=True, credit_grant__isnull=True)
                | Q(invoice__isnull=True, top_up__isnull=False, credit_grant__isnull=True)
                | Q(invoice__isnull=True, top_up__isnull=True, credit_grant__isnull=False),
                name="allocation_is_to_one_thing",
            ),
            models.UniqueConstraint(
                fields=["payment", "invoice"], name="payment_pays_an_invoice_once"
            ),
            models.UniqueConstraint(fields=["top_up"], name="top_up_is_paid_once"),
            models.UniqueConstraint(fields=["credit_grant"], name="credit_is_of_one_payment"),
        )

    def __str__(self) -> str:
        return f"{self.amount} of {self.payment}"


class Refund(models.Model):
    """Money of a payment that goes back to the customer. Its id is the idempotency key."""

    class Status(models.TextChoices):
        # A second person has to agree.
        PROPOSED = "proposed"
        REJECTED = "rejected"
        # To be asked for at the provider, or asked and not answered.
        APPROVED = "approved"
        # The provider has it, and will say.
        PENDING = "pending"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="refunds")
    amount = amount_column()
    status = models.CharField(max_length=16, choices=Status)
    reason = models.CharField(max_length=200)
    # So much prepaid credit is taken back with it; it goes back when the refund fails.
    credit_taken = amount_column(default=0)
    # The author's own name for it, under which it is asked for once. Empty: made at the provider.
    reference = models.CharField(max_length=100, blank=True, default="")
    author = _user()
    proposed_at = models.DateTimeField()
    decided_by = _user()
    decided_at = models.DateTimeField(null=True, blank=True)
    provider_id = models.CharField(max_length=100, null=True, blank=True, unique=True)
    # Of an offline payment: the bank's reference of the transfer back.
    bank_reference = models.CharField(max_length=100, blank=True, default="")
    ended_at = models.DateTimeField(null=True, blank=True)
    failure = models.TextField(blank=True, default="")
    claimed_until = models.DateTimeField(null=True, blank=True)
    try_at = models.DateTimeField()

    class Meta:
        ordering = ("-proposed_at",)
        permissions = (("approve_refund", "Can approve refund"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(amount__gt=0, credit_taken__gte=0, credit_taken__lte=F("amount")),
                name="refund_is_above_0_and_takes_no_more_credit",
            ),
            models.CheckConstraint(
                condition=Q(author__isnull=True)
                | Q(decided_by__isnull=True)
                | Q(status="rejected")
                | ~Q(author=F("decided_by")),
                name="refund_is_approved_by_a_second_person",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="refund_says_why"),
            models.CheckConstraint(
                condition=Q(status__in=["proposed", "approved", "pending"], ended_at__isnull=True)
                | Q(status__in=["rejected", "succeeded", "failed"], ended_at__isnull=False),
                name="ended_refund_says_when",
            ),
            models.UniqueConstraint(
                fields=["payment", "reference"],
                condition=~Q(reference=""),
                name="refund_is_asked_for_once_under_a_reference",
            ),
        )
        indexes = (
            models.Index(
                fields=["try_at"],
                condition=Q(status__in=["approved", "pending"]),
                name="refunds_by_turn",
            ),
        )

    def __str__(self) -> str:
        return f"{self.amount} of {self.payment}"


class Dispute(models.Model):
    """A payment that the customer's bank takes back, until it is decided."""

    class Status(models.TextChoices):
        # The money is withdrawn until it is decided.
        OPEN = "open"
        # A question of the bank's; no money is withdrawn.
        INQUIRY = "inquiry"
        WON = "won"
        LOST = "lost"

    provider_id = models.CharField(max_length=100, unique=True)
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="disputes")
    amount = amount_column()
    status = models.CharField(max_length=16, choices=Status)
    reason = models.CharField(max_length=64)
    opened_at = models.DateTimeField()
    # Evidence is to be given by then. Empty: nothing can be given any more.
    answer_by = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-opened_at",)
        constraints = (
            models.CheckConstraint(condition=Q(amount__gt=0), name="dispute_is_above_0"),
            models.CheckConstraint(
                condition=Q(status__in=["open", "inquiry"], closed_at__isnull=True)
                | Q(status__in=["won", "lost"], closed_at__isnull=False),
                name="closed_dispute_says_when",
            ),
        )

    def __str__(self) -> str:
        return f"{self.status} dispute of {self.payment}"
