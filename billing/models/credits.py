from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from billing.credits import CreditKind
from billing.models.accounts import Account
from billing.models.columns import amount_column
from billing.models.invoices import Invoice
from billing.models.plans import Subscription

KINDS = [(kind.value, kind.value) for kind in CreditKind]


class CreditGrant(models.Model):
    """Credit that an account was given, in its currency.

    Never changed: what becomes of it is told by its entries.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="credit_grants")
    kind = models.CharField(max_length=16, choices=KINDS)
    # It pays for periods that share time with [effective_at, expires_at).
    effective_at = models.DateTimeField()
    # Empty: never.
    expires_at = models.DateTimeField(null=True, blank=True)
    # The lower is used first, inside its kind.
    priority = models.IntegerField(default=0)
    # Monthly credit: what it comes with, and for which period.
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="credit_grants",
    )
    period_start = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    # The giver's own name for it; granting under it again finds this one.
    reference = models.CharField(max_length=100, blank=True, default="")
    reason = models.CharField(max_length=200, blank=True, default="")
    granted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, editable=False
    )
    granted_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                condition=Q(
                    kind="monthly",
                    subscription__isnull=False,
                    period_start__isnull=False,
                    period_end__isnull=False,
                    period_end__gt=F("period_start"),
                )
                | (
                    ~Q(kind="monthly")
                    & ~Q(reason="")
                    & Q(
                        subscription__isnull=True,
                        period_start__isnull=True,
                        period_end__isnull=True,
                    )
                ),
                name="monthly_credit_names_its_subscription_other_credit_its_reason",
                violation_error_message="Say in reason what the credit is for.",
            ),
            models.UniqueConstraint(
                fields=["subscription", "period_start"],
                name="subscription_brings_credit_once_a_period",
            ),
            models.UniqueConstraint(
                fields=["account", "reference"],
                condition=~Q(reference=""),
                name="credit_is_granted_once_under_a_reference",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("effective_at")),
                name="credit_expires_after_it_is_effective",
                violation_error_message="Let expires_at be later than effective_at.",
            ),
        )
        indexes = (models.Index(fields=["expires_at"], name="credit_grants_by_expiry"),)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} credit of {self.account}"


class CreditEntry(models.Model):
    """A line of the credit ledger. The balance of a grant is the sum of its entries.

    Append-only: the application's database role may not update, delete or truncate.
    """

    class Kind(models.TextChoices):
        GRANT = "grant"
        USE = "use"
        EXPIRE = "expire"
        REVOKE = "revoke"
        # A void invoice gives back what paid it.
        REFUND = "refund"
        # What had expired is there again, for late usage of a period that it could have paid.
        RESTORE = "restore"
        # It pays an adjustment of an earlier period.
        LATE_USE = "late_use"
        # An earlier period spent too much of it.
        RETURN = "return"
        # A void invoice takes back what it returned.
        TAKE_BACK = "take_back"

    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=16, choices=Kind)
    # Above zero for credit that comes, below for credit that goes, in the account's currency.
    amount = amount_column()
    # The invoice that was paid with it, whose void gave it back, or that adjusts a period.
    invoice = models.ForeignKey(
        Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="credit_entries"
    )
    # Of an entry made by hand: its own name, under which it is made once, and what it is for.
    reference = models.CharField(max_length=100, blank=True, default="")
    reason = models.CharField(max_length=200, blank=True, default="")
    recorded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, editable=False
    )
    recorded_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "credit entries"
        constraints = (
            models.CheckConstraint(
                condition=Q(kind__in=["grant", "refund", "restore", "return"], amount__gt=0)
                | Q(kind__in=["use", "late_use", "expire", "revoke", "take_back"], amount__lt=0),
                name="credit_entry_has_the_sign_of_its_kind",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind__in=["use", "late_use", "refund", "restore", "return", "take_back"],
                    invoice__isnull=False,
                )
                | (
                    Q(kind__in=["use", "late_use", "restore", "return"], invoice__isnull=True)
                    & ~Q(reference="")
                    & ~Q(reason="")
                )
                | Q(kind__in=["grant", "expire", "revoke"], invoice__isnull=True),
                name="credit_entry_names_the_invoice_it_paid_or_says_why",
            ),
            # It may expire twice: what a void invoice gave back expires again.
            models.UniqueConstraint(
                fields=["grant"], condition=Q(kind="grant"), name="credit_is_granted_once"
            ),
            models.UniqueConstraint(
                fields=["grant", "kind", "invoice"],
                condition=Q(invoice__isnull=False),
                name="credit_pays_an_invoice_once",
            ),
            models.UniqueConstraint(
                fields=["grant", "kind", "reference"],
                condition=~Q(reference=""),
                name="credit_is_used_by_hand_once_under_a_reference",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class TopUp(models.Model):
    """Prepaid credit that was asked for. It becomes a grant once it is paid."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="top_ups")
    amount = amount_column()
    is_automatic = models.BooleanField(default=False)
    requested_at = models.DateTimeField()
    # What it became. Empty: not paid yet, or given up.
    grant = models.OneToOneField(
        CreditGrant, on_delete=models.PROTECT, null=True, blank=True, related_name="top_up"
    )
    # The document of the sale.
    invoice = models.OneToOneField(
        Invoice, on_delete=models.PROTECT, null=True, blank=True, related_name="of_top_up"
    )
    given_up_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "top-up"
        constraints = (
            models.CheckConstraint(
                condition=Q(amount__gt=0),
                name="top_up_is_above_0",
                violation_error_message="Use an amount above 0.",
            ),
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(is_automatic=True, grant__isnull=True, given_up_at__isnull=True),
                name="account_has_one_automatic_top_up_waiting",
            ),
            models.CheckConstraint(
                condition=Q(grant__isnull=True) | Q(given_up_at__isnull=True),
                name="top_up_is_paid_or_given_up",
            ),
        )

    def __str__(self) -> str:
        return f"Top-up of {self.account}"
