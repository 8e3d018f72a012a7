"""Which group of staff may do what. Made anew after each migration: change it here.

For other cuts make groups of other names; these are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from django.contrib.auth.models import Group, Permission

READ = ("billing", "metering", "payments")
"""The apps that every role sees all of."""


class Role(StrEnum):
    """The groups' names."""

    FINANCE = "finance"
    FINANCE_MANAGER = "finance manager"
    SUPPORT = "support"
    OPERATOR = "operator"


_FINANCE = frozenset(
    {
        "auth.view_user",
        "billing.add_account",
        "billing.change_account",
        "billing.add_membership",
        "billing.change_membership",
        "billing.delete_membership",
        "billing.add_apikey",
        "billing.change_apikey",
        "billing.add_plan",
        "billing.change_plan",
        "billing.add_pricebook",
        "billing.change_pricebook",
        "billing.add_pricebookversion",
        "billing.change_pricebookversion",
        "billing.add_price",
        "billing.change_price",
        "billing.delete_price",
        "billing.add_discountrule",
        "billing.change_discountrule",
        "billing.add_subscription",
        "billing.change_subscription",
        "billing.add_creditgrant",
        "billing.change_creditgrant",
        "billing.add_creditentry",
        "billing.add_topup",
        "billing.change_topup",
        "billing.add_budget",
        "billing.change_budget",
        "billing.change_invitation",
        # Send customers' events again, switch their endpoints off and on.
        "billing.change_delivery",
        "billing.change_webhookendpoint",
        # Draft, finalise, retry its payment, send its e-mails again.
        "billing.change_invoice",
        # Record a payment, propose a refund, mark one as done that was approved; collect anew what
        # the provider refused; settle differences.
        "payments.add_payment",
        "payments.add_refund",
        "payments.change_refund",
        "payments.change_collection",
        "payments.change_difference",
        # Bring customers up to date at the provider.
        "payments.change_customer",
    }
)

WRITE: dict[Role, frozenset[str]] = {
    Role.FINANCE: _FINANCE,
    Role.FINANCE_MANAGER: _FINANCE
    | {
        "billing.void_invoice",
        "billing.write_off_invoice",
        "billing.approve_correction",
        "billing.park_account",
        "payments.approve_refund",
        "payments.add_reconciliation",
        "payments.add_dunningstep",
        "payments.change_dunningstep",
        "payments.delete_dunningstep",
        "payments.replay_webhookevent",
    },
    Role.SUPPORT: frozenset(),
    Role.OPERATOR: frozenset(
        {
            "billing.park_account",
            "billing.add_apikey",
            "billing.change_apikey",
            "billing.change_delivery",
            "billing.change_webhookendpoint",
            "payments.change_customer",
            "payments.add_reconciliation",
            "payments.replay_webhookevent",
            "metering.change_host",
            "metering.change_sandbox",
            "metering.add_meteringkey",
            "metering.change_meteringkey",
        }
    ),
}
"""What each role may do beside looking, as `app.right`."""


class UnknownRightError(Exception):
    """A role names a right that no table has; the message names both."""


def make_groups(using: str) -> None:
    """Give each role's group the rights of the table, and no others. Safe to repeat.

    Runs after the migrations, when all rights are there. Raises UnknownRightError.
    """
    rights = Permission.objects.using(using).select_related("content_type")
    known = {f"{right.content_type.app_label}.{right.codename}": right for right in rights}
    looks = {
        name
        for name, right in known.items()
        if right.content_type.app_label in READ and right.codename.startswith("view_")
    }
    for role, writes in WRITE.items():
        if unknown := sorted(writes - known.keys()):
            raise UnknownRightError(f"{role} names {', '.join(unknown)}, which no table has.")
        group, _ = Group.objects.using(using).get_or_create(name=role)
        _set_rights(group, (known[name] for name in looks | writes))


def _set_rights(group: Group, rights: Iterable[Permission]) -> None:
    """Add what is missing and take what is too much, so that nothing changed is no change."""
    wanted = {right.pk for right in rights}
    has = set(group.permissions.values_list("pk", flat=True))
    group.permissions.remove(*(has - wanted))
    group.permissions.add(*(wanted - has))
