"""Who may see an account and act for it: its members, and who is asked to become one."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account

OPEN = Q(accepted_at__isnull=True, withdrawn_at__isnull=True)
"""Of an invitation: it can be accepted still, unless it has expired."""


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


class Invitation(models.Model):
    """An address that is asked to become a member. Who has its token has the mailbox.

    The token is in the e-mail alone; kept of it is a hash.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="invitations")
    # In small letters.
    email = models.EmailField()
    role = models.CharField(max_length=16, choices=Membership.Role)
    token_hash = models.CharField(max_length=64, editable=False)  # SHA-256, hexadecimal
    # Empty: a program with a key of the account.
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    invited_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Taken back, or replaced by another one.
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-invited_at", "-id")
        constraints = (
            models.UniqueConstraint(fields=["token_hash"], name="invitation_token_is_unique"),
            models.UniqueConstraint(
                fields=["account", "email"],
                condition=OPEN,
                name="address_is_invited_to_an_account_once_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("invited_at")),
                name="invitation_expires_after_it_is_made",
            ),
            models.CheckConstraint(
                condition=Q(accepted_at__isnull=True, accepted_by__isnull=True)
                | Q(
                    accepted_at__isnull=False,
                    accepted_by__isnull=False,
                    withdrawn_at__isnull=True,
                ),
                name="invitation_is_accepted_by_somebody_or_withdrawn",
            ),
        )

    def __str__(self) -> str:
        return f"{self.email} to {self.account}"
