from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models.columns import amount_column
from billing.models.invoices import Invoice
from billing.models.plans import Subscription


class CreditGrant(models.Model):
    """The credit that a subscription brings for one period. It pays that period's usage only.

    Never changed: what becomes of it is told by its entries.
    """

    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, related_name="credit_grants"
    )
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=["subscription", "period_start"],
                name="subscription_brings_credit_once_a_period",
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="credit_period_ends_after_start",
            ),
        )

    def __str__(self) -> str:
        return f"Credit of {self.subscription}, {self.period_start:%Y-%m}"


class CreditEntry(models.Model):
    """A line of the credit ledger. The balance of a grant is the sum of its entries.

    Append-only: the application's database role may not update, delete or truncate.
    """

    class Kind(models.TextChoices):
        GRANT = "grant"
        USE = "use"
        EXPIRE = "expire"
        REVOKE = "revoke"
        REFUND = "refund"

    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=16, choices=Kind)
    # Above zero for credit that comes, below for credit that goes, in the account's currency.
    amount = amount_column()
    # The invoice that was paid with it, or whose void gave it back.
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="credit_entries"
    )
    recorded_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "credit entries"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind__in=["grant", "refund"], amount__gt=0)
                | Q(kind__in=["use", "expire", "revoke"], amount__lt=0),
                name="credit_entry_has_the_sign_of_its_kind",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["use", "refund"], invoice__isnull=False)
                | Q(kind__in=["grant", "expire", "revoke"], invoice__isnull=True),
                name="credit_entry_names_the_invoice_it_paid",
            ),
            models.UniqueConstraint(
                fields=["grant", "kind"],
                condition=Q(invoice__isnull=True),
                name="credit_is_granted_expired_and_revoked_once",
            ),
            models.UniqueConstraint(
                fields=["grant", "kind", "invoice"],
                condition=Q(invoice__isnull=False),
                name="credit_pays_an_invoice_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"
