"""The audit trail: who changed what decides about money, from what to what, and why.

django-pgtrigger keeps a trigger on each of these tables, so that a change is kept however it
comes: by a form, a service, `QuerySet.update`, COPY or SQL. django-pghistory brings actor and
reason along: see `billing.acting`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pgtrigger
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import models

from billing.models.accounts import Account, ApiKey
from billing.models.credits import TopUp
from billing.models.discounts import DiscountRule
from billing.models.members import Invitation, Membership
from billing.models.messages import Budget
from billing.models.outgoing import WebhookEndpoint
from billing.models.plans import Plan, Subscription
from billing.models.prices import Price, PriceBook, PriceBookVersion, PriceTier

NOT_AUDITED = {
    # The billing run moves them for every account; invoices tell of it.
    "billing_account": ("open_period_start", "open_period_end"),
    # A secret.
    "billing_invitation": ("token_hash",),
    # A secret, and a sign of life.
    "billing_apikey": ("key_hash", "last_used_at"),
    # Secrets, and what sending moves.
    "billing_webhookendpoint": (
        "secret_seed",
        "secret_check",
        "old_secret_seed",
        "old_secret_check",
        "failing_since",
        "last_took_ms",
        "claimed_until",
    ),
    # When a sweep last looked.
    "billing_budget": ("looked_at",),
    # A secret, and a sign of life.
    "auth_user": ("password", "last_login"),
}
"""By table of ours: columns whose change alone is no entry, and that no entry shows."""


class Audited(pgtrigger.Trigger):
    """Keeps each change of a table's rows. `billing_audit` is made by the trail's migration."""

    left_out: tuple[str, ...] = ()
    """As NOT_AUDITED, for tables of other apps: of a class of their own."""
    when = pgtrigger.After
    operation = pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete

    def get_func(self, model: models.Model) -> str:
        """Return the trigger's body."""
        table = model._meta.db_table  # noqa: SLF001 - Django's public name for it
        left_out = ", ".join(f"'{name}'" for name in (*self.left_out, *NOT_AUDITED.get(table, ())))
        return (
            "PERFORM billing_audit(TG_TABLE_NAME, TG_OP, to_jsonb(OLD), to_jsonb(NEW), "
            f"ARRAY[{left_out}]::text[]); RETURN NULL;"
        )


class StaffUser(User):
    """Django's users, for the trigger's sake: whose app's migrations are not ours to write."""

    class Meta:
        proxy = True
        default_permissions = ()


class StaffGroup(Group):
    """Django's groups, for the same."""

    class Meta:
        proxy = True
        default_permissions = ()


class StaffUserGroup(User.groups.through):  # type: ignore[name-defined,misc]  # made at run time
    """Who is in which group, for the same."""

    class Meta:
        proxy = True
        default_permissions = ()


class StaffUserPermission(User.user_permissions.through):  # type: ignore[name-defined,misc]  # made at run time
    """Who has which right of their own, for the same."""

    class Meta:
        proxy = True
        default_permissions = ()


class StaffGroupPermission(Group.permissions.through):  # type: ignore[name-defined,misc]  # made at run time
    """Which group has which right, for the same."""

    class Meta:
        proxy = True
        default_permissions = ()


AUDITED: tuple[type[models.Model], ...] = (
    Account,
    ApiKey,
    Membership,
    Invitation,
    Plan,
    Subscription,
    PriceBook,
    PriceBookVersion,
    Price,
    PriceTier,
    DiscountRule,
    TopUp,
    Budget,
    WebhookEndpoint,
    StaffUser,
    StaffGroup,
    StaffUserGroup,
    StaffUserPermission,
    StaffGroupPermission,
)
for _model in AUDITED:
    pgtrigger.register(Audited(name="audited"))(_model)


class Operation(models.TextChoices):
    """What happened to a row."""

    INSERT = "insert", "added"
    UPDATE = "update", "changed"
    DELETE = "delete", "deleted"


class ExactNumbers(json.JSONDecoder):
    """Reads numbers as they were written, so that a price is shown as it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_float": Decimal})


class AuditColumns(models.Model):
    """What the trail says of a change."""

    at = models.DateTimeField()
    # Who was logged in, or whose program called. Both empty: the system, in a task or a command.
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+"
    )
    # Without a constraint: an account may go before its first invoice, and the trail stays.
    api_key = models.ForeignKey(
        ApiKey,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        verbose_name="API key",
        related_name="+",
    )
    reason = models.TextField()
    table_name = models.CharField("table", max_length=63)
    row_id = models.CharField("row", max_length=63)
    operation = models.CharField(max_length=6, choices=Operation)
    # Of a change only the columns that changed; of a new row there is no before, of a deleted
    # one no after. As JSON, since it is evidence to read: nothing is computed from it.
    before = models.JSONField(null=True, decoder=ExactNumbers)
    after = models.JSONField(null=True, decoder=ExactNumbers)

    class Meta:
        abstract = True


class AuditEntry(AuditColumns):
    """A change of one row. Written by triggers alone, and never changed."""

    # No foreign key: an account may go before its first invoice, and the trail stays.
    account_id = models.UUIDField(null=True)

    class Meta:
        default_permissions = ()
        verbose_name_plural = "audit entries"
        indexes = (
            models.Index(fields=["-at"], name="audit_entries_by_time"),
            models.Index(fields=["table_name", "row_id"], name="audit_entries_by_row"),
            models.Index(fields=["account_id"], name="audit_entries_by_account"),
        )

    def __str__(self) -> str:
        return f"{self.table_name} {self.row_id}"


class AuditTrail(AuditColumns):
    """The audit entries, and what people did to invoices and credit, from those' own histories.

    A view: invoices' transitions and the credit ledger are append-only and say who and why.
    """

    id = models.CharField(primary_key=True, max_length=30)
    account = models.ForeignKey(
        Account, on_delete=models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )

    class Meta:
        managed = False
        db_table = "billing_audittrail"
        default_permissions = ("view",)
        ordering = ("-at", "-id")
        verbose_name = "change"
        verbose_name_plural = "audit trail"

    def __str__(self) -> str:
        return f"{self.table_name} {self.row_id}"
