from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F

from billing.models.accounts import Account


class AccountClosing(models.Model):
    """An account that is being closed, or is: who asked, and what it waits for.

    When each step was taken stands in the account's own row.
    """

    account = models.OneToOneField(
        Account, on_delete=models.PROTECT, primary_key=True, related_name="closing"
    )
    asked_at = models.DateTimeField()
    # Empty: a program with a key of the account.
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reason = models.CharField(max_length=200, blank=True, default="")
    # What keeps it from being closed. Empty: nothing was found to.
    waiting_for = models.CharField(max_length=500, blank=True, default="")
    # Those left alone longest are looked at first.
    tried_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-asked_at",)
        indexes = (
            models.Index(F("tried_at").asc(nulls_first=True), name="account_closings_by_turn"),
        )

    def __str__(self) -> str:
        return f"Closing of {self.account}"
