from __future__ import annotations

import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from billing.models.columns import (
    IsTimeZone,
    amount_column,
    currency_column,
    has_known_currency,
)
from billing.periods import LAST_ANCHOR_DAY, Cycle
from billing.totals import Tax
from metering.period import Period

SCOPE_NAMES = ["read", "write", "metering", "admin"]
UNKNOWN_ZONE = "Use an IANA time zone, as in Europe/Berlin."


class Account(models.Model):
    """Who pays. Its row is what a service that writes money locks first."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    currency = currency_column(default="USD")
    # IANA name. The account's months begin and end at its midnights.
    time_zone = models.CharField(max_length=64, default="UTC")
    # The day of the month its periods start on. 1: calendar months.
    anchor_day = models.PositiveSmallIntegerField(default=1)
    # What time zone and anchor day become, and from the start of which period on.
    next_time_zone = models.CharField(max_length=64, blank=True, default="")
    next_anchor_day = models.PositiveSmallIntegerField(null=True, blank=True)
    cycle_changes_at = models.DateTimeField(null=True, blank=True)
    # A fraction, 0.19 for 19 %.
    tax_rate = models.DecimalField(max_digits=6, decimal_places=5, default=Decimal(0))
    # Whether prices contain the tax; else it comes on top.
    tax_is_inclusive = models.BooleanField(default=False)
    # As printed on its invoices, the address line by line, and where they are sent beside the
    # members who see them.
    address = models.TextField(blank=True, default="")
    tax_id = models.CharField(max_length=64, blank=True, default="")
    billing_email = models.EmailField(blank=True, default="")
    # With less prepaid credit than the threshold, the amount is asked for. Empty: never.
    top_up_threshold = amount_column(null=True, blank=True)
    top_up_amount = amount_column(null=True, blank=True)
    # When it became a customer; nothing before is metered.
    opened_at = models.DateTimeField()
    # The earliest period that is not closed: neither invoiced nor found to hold nothing.
    open_period_start = models.DateTimeField()
    open_period_end = models.DateTimeField()
    # Its members asked to close it; its last period ends; everything is settled.
    closing_at = models.DateTimeField(null=True, blank=True, editable=False)
    ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Why the sweeps leave this account to a human. Empty: they do not.
    parked_reason = models.TextField(blank=True, default="")
    parked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name", "id")
        permissions = (("park_account", "Can park and unpark account"),)
        constraints = (
            has_known_currency("account_currency_is_one_of_iso_4217"),
            models.CheckConstraint(
                condition=IsTimeZone("time_zone"),
                name="account_time_zone_is_known",
                violation_error_message=UNKNOWN_ZONE,
            ),
            models.CheckConstraint(
                condition=Q(next_time_zone="") | Q(IsTimeZone("next_time_zone")),
                name="account_next_time_zone_is_known",
                violation_error_message=UNKNOWN_ZONE,
            ),
            models.CheckConstraint(
                condition=Q(anchor_day__gte=1, anchor_day__lte=LAST_ANCHOR_DAY)
                & (
                    Q(next_anchor_day__isnull=True)
                    | Q(next_anchor_day__gte=1, next_anchor_day__lte=LAST_ANCHOR_DAY)
                ),
                name="account_anchor_day_is_a_day_of_a_month",
                violation_error_message="Use a day of the month, 1 to 31.",
            ),
            models.CheckConstraint(
                condition=Q(
                    next_time_zone="", next_anchor_day__isnull=True, cycle_changes_at__isnull=True
                )
                | (
                    ~Q(next_time_zone="")
                    & Q(next_anchor_day__isnull=False, cycle_changes_at__isnull=False)
                ),
                name="account_change_of_cycle_says_to_what_and_when",
            ),
            models.CheckConstraint(
                condition=Q(tax_rate__gte=0, tax_rate__lt=1),
                name="account_tax_rate_is_a_fraction",
                violation_error_message="Use a fraction, as in 0.19 for 19 %%.",
            ),
            models.CheckConstraint(
                condition=Q(top_up_threshold__isnull=True, top_up_amount__isnull=True)
                | Q(
                    top_up_threshold__isnull=False,
                    top_up_threshold__gte=0,
                    top_up_amount__isnull=False,
                    top_up_amount__gt=0,
                ),
                name="account_top_up_has_a_threshold_and_an_amount",
                violation_error_message=(
                    "Give automatic top-up both a threshold, 0 or more, and an amount above 0."
                ),
            ),
            models.CheckConstraint(
                condition=Q(open_period_end__gt=F("open_period_start")),
                name="account_open_period_ends_after_start",
            ),
            models.CheckConstraint(
                condition=(Q(ends_at__isnull=True) | Q(closing_at__isnull=False))
                & (Q(closed_at__isnull=True) | Q(ends_at__isnull=False)),
                name="account_is_asked_to_close_then_ends_then_is_closed",
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
            models.Index(
                fields=["parked_at"],
                condition=Q(parked_at__isnull=False),
                name="parked_accounts",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def cycle(self) -> Cycle:
        """How the account's time is cut into periods, until a change of it takes effect."""
        return Cycle(ZoneInfo(self.time_zone), self.anchor_day)

    @property
    def next_cycle(self) -> Cycle | None:
        """What the cycle becomes at `cycle_changes_at`; None when no change is waiting."""
        if self.next_anchor_day is None:
            return None
        return Cycle(ZoneInfo(self.next_time_zone), self.next_anchor_day)

    @property
    def tax(self) -> Tax:
        """The account's tax."""
        return Tax(self.tax_rate, self.tax_is_inclusive)

    @property
    def open_period(self) -> Period:
        """The earliest period that is not closed."""
        return Period(self.open_period_start, self.open_period_end)


def default_scopes() -> list[str]:
    """Return what a key may do unless something else is chosen: all but what owners do."""
    return [ApiKey.Scope.READ, ApiKey.Scope.WRITE]


class ApiKey(models.Model):
    """A customer's key to the API. The key itself is shown once and not kept."""

    class Scope(models.TextChoices):
        """What a key, or a member, may do with the API."""

        READ = "read", "read everything of the account"
        WRITE = "write", "change plan, payment methods and budgets"
        METERING = "metering", "have a sandbox read at once"
        ADMIN = "admin", "manage keys, webhooks, members and the account"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope), default=default_scopes)
    # The first characters, for people to tell keys apart; too few to guess the rest.
    prefix = models.CharField(max_length=20)
    key_hash = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    created_at = models.DateTimeField()
    # Refused from then on. Null: never.
    expires_at = models.DateTimeField(null=True, blank=True)
    # To the minute: a write at every request would cost more than it tells.
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        ordering = ("-created_at",)
        constraints = (
            models.UniqueConstraint(fields=["key_hash"], name="api_key_hash_is_unique"),
            models.CheckConstraint(
                condition=Q(scopes__len__gt=0, scopes__contained_by=SCOPE_NAMES),
                name="api_key_has_scopes_that_exist",
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
