from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account
from metering.period import Period


class ProviderPeriod(models.Model):
    """A period of the payment provider that collects an account's fee, as the provider told it.

    Append-only: the application's database role may not update, delete or truncate. The last one
    holds, and those before it up to where it took over.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="provider_periods")
    # The provider's own bounds, to the second.
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    # The start of the window from which the account's periods follow it; what was closed stays.
    holds_from = models.DateTimeField()
    recorded_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=["account", "starts_at", "ends_at"],
                name="period_of_a_provider_is_taken_once",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")) & Q(ends_at__gt=F("holds_from")),
                name="period_of_a_provider_ends_after_its_start",
            ),
        )

    def __str__(self) -> str:
        return f"{self.starts_at:%Y-%m-%d} to {self.ends_at:%Y-%m-%d}"

    @property
    def period(self) -> Period:
        """The provider's period."""
        return Period(self.starts_at, self.ends_at)
