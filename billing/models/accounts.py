from __future__ import annotations

import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from billing.models.columns import IS_CURRENCY_CODE, currency_column
from metering.period import Period


class Account(models.Model):
    """Who pays. Its row is what a service that writes money locks first."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    currency = currency_column(default="USD")
    # IANA name. The account's months begin and end at its midnights.
    time_zone = models.CharField(max_length=64, default="UTC")
    # A fraction, 0.19 for 19 %. Comes on top of the prices.
    tax_rate = models.DecimalField(max_digits=6, decimal_places=5, default=Decimal(0))
    # When it became a customer; nothing before is metered.
    opened_at = models.DateTimeField()
    # The earliest period that is not closed: neither invoiced nor found to hold nothing.
    open_period_start = models.DateTimeField()
    open_period_end = models.DateTimeField()
    # Why the sweeps leave this account to a human. Empty: they do not.
    parked_reason = models.TextField(blank=True, default="")
    parked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.CheckConstraint(condition=IS_CURRENCY_CODE, name="account_has_a_currency_code"),
            models.CheckConstraint(
                condition=Q(tax_rate__gte=0, tax_rate__lt=1), name="account_tax_rate_is_a_fraction"
            ),
            models.CheckConstraint(
                condition=Q(open_period_end__gt=F("open_period_start")),
                name="account_open_period_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(parked_reason="", parked_at__isnull=True)
                | (~Q(parked_reason="") & Q(parked_at__isnull=False)),
                name="parked_account_says_why_and_when",
            ),
        )
        indexes = (
            models.Index(
                fields=["open_period_end"],
                condition=Q(parked_reason=""),
                name="accounts_by_period_due",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone whose midnights bound the account's months."""
        return ZoneInfo(self.time_zone)

    @property
    def open_period(self) -> Period:
        """The earliest period that is not closed."""
        return Period(self.open_period_start, self.open_period_end)


class Membership(models.Model):
    """A user's part in an account."""

    class Role(models.TextChoices):
        OWNER = "owner"
        BILLING = "billing"
        VIEWER = "viewer"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["user", "account"], name="user_is_a_member_of_an_account_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user} in {self.account}"


class ApiKey(models.Model):
    """A customer's key to the API. The key itself is shown once and not kept."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    # The first characters, for people to tell keys apart; too few to guess the rest.
    prefix = models.CharField(max_length=20)
    key_hash = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    created_at = models.DateTimeField()
    # To the minute: a write at every request would cost more than it tells.
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        ordering = ("-created_at",)
        constraints = (models.UniqueConstraint(fields=["key_hash"], name="api_key_hash_is_unique"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
