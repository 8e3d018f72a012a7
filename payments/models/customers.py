"""Who pays at the provider, with what, and how they stand with us."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models import Account


class Customer(models.Model):
    """An account as the payment provider knows it, and how it stands with us."""

    class Standing(models.TextChoices):
        ACTIVE = "active"
        # Something it owes could not be collected.
        PAST_DUE = "past_due"
        # The platform was asked to stop its sandboxes.
        SUSPENDED = "suspended"

    account = models.OneToOneField(
        Account, on_delete=models.PROTECT, primary_key=True, related_name="customer"
    )
    # Empty: not made there yet.
    provider_id = models.CharField(max_length=100, null=True, blank=True, unique=True)
    # SHA-256 of what the provider was told of it last, hexadecimal; with another it is told anew.
    told_hash = models.CharField(max_length=64, blank=True, default="")
    told_at = models.DateTimeField(null=True, blank=True)
    standing = models.CharField(max_length=16, choices=Standing, default=Standing.ACTIVE)
    standing_since = models.DateTimeField()
    # So often the provider was asked for the payment methods, and whose answer is kept: one that
    # was asked for earlier may be older, and is not.
    methods_asked = models.PositiveIntegerField(default=0)
    methods_taken = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=~Q(provider_id=""), name="customer_at_the_provider_has_an_id"
            ),
        )
        indexes = (
            models.Index(
                fields=["standing", "standing_since"],
                condition=~Q(standing="active"),
                name="customers_in_arrears",
            ),
        )

    def __str__(self) -> str:
        return str(self.account)


class PaymentMethod(models.Model):
    """A card that the provider keeps for an account. Only what people tell cards apart by."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="payment_methods")
    provider_id = models.CharField(max_length=100, unique=True)
    # As the provider names them: `card`, and for a card `visa`.
    kind = models.CharField(max_length=32)
    brand = models.CharField(max_length=32, blank=True, default="")
    last4 = models.CharField(max_length=4, blank=True, default="")
    # It may be used to the end of that month. Empty: it does not expire.
    expires_month = models.PositiveSmallIntegerField(null=True, blank=True)
    expires_year = models.PositiveSmallIntegerField(null=True, blank=True)
    is_default = models.BooleanField(default=False)
    added_at = models.DateTimeField()
    # Taken away, here or at the provider. Empty: it can be charged.
    removed_at = models.DateTimeField(null=True, blank=True)
    # It was removed here, and is to be detached at the provider then. Empty: it is, or was not.
    detach_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-is_default", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(is_default=True),
                name="account_has_one_default_payment_method",
            ),
            models.CheckConstraint(
                condition=Q(is_default=False) | Q(removed_at__isnull=True),
                name="default_payment_method_is_not_removed",
            ),
            models.CheckConstraint(
                condition=Q(detach_at__isnull=True) | Q(removed_at__isnull=False),
                name="payment_method_is_detached_once_removed",
            ),
            models.CheckConstraint(
                condition=Q(expires_month__isnull=True, expires_year__isnull=True)
                | Q(
                    expires_month__isnull=False,
                    expires_year__isnull=False,
                    expires_month__gte=1,
                    expires_month__lte=12,
                ),
                name="payment_method_expires_in_a_month_of_a_year",
            ),
        )
        indexes = (
            models.Index(
                F("expires_year"),
                F("expires_month"),
                condition=Q(removed_at__isnull=True),
                name="payment_methods_by_expiry",
            ),
            models.Index(
                fields=["detach_at"],
                condition=Q(detach_at__isnull=False),
                name="payment_methods_to_detach",
            ),
        )

    def __str__(self) -> str:
        return f"{self.brand or self.kind} …{self.last4}"
