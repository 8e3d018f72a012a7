"""Stops an invoice that is wildly off its account's own history, until a person has looked."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Window
from django.db.models.functions import RowNumber

from billing.history import BILLING_A_PERIOD
from billing.lifecycle import NOT_FINAL, TransitionRefusedError
from billing.models import Invoice
from billing.services.accounts import lock_account, unpark_account
from billing.statement import Statement

INVOICES_COMPARED = 6


class SafetyBoundError(Exception):
    """An invoice is far above what the account was ever invoiced; a person has to look."""


def past_highest(account_ids: Collection[UUID]) -> dict[UUID, Decimal]:
    """Return the highest fees, before discounts and credits, of each account's last invoices.

    Accounts without a final invoice are left out.
    """
    last = (
        Invoice.objects.filter(account__in=account_ids, kind__in=BILLING_A_PERIOD)
        .exclude(status__in=NOT_FINAL)
        .annotate(
            age=Window(
                RowNumber(), partition_by=F("account_id"), order_by=F("period_start").desc()
            ),
            fees=F("subscription_fee") + F("usage_fee"),
        )
        .filter(age__lte=INVOICES_COMPARED)
        .values_list("account_id", "fees")
    )
    highest: dict[UUID, Decimal] = {}
    for account_id, fees in last:
        highest[account_id] = max(fees, highest.get(account_id, fees))
    return highest


def refuse_out_of_bounds(draft: Invoice, statement: Statement, highest: Decimal | None) -> None:
    """Raise SafetyBoundError when the fees are many times the account's highest so far.

    Not below a floor, not on a first invoice, and not when a person accepted as much.
    """
    fees = (statement.totals.subscription_fee + statement.totals.usage_fee).amount
    bound = max(
        settings.BILLING_SAFETY_FACTOR * (highest or 0),
        settings.BILLING_SAFETY_FLOOR,
        draft.accepted_fees or 0,
    )
    if highest is None or not settings.BILLING_SAFETY_FACTOR or fees <= bound:
        return
    raise SafetyBoundError(
        f"The fees from {draft.period_start:%Y-%m-%d} come to {fees}, above the bound of {bound}: "
        f"the account's highest of {INVOICES_COMPARED} invoices is {highest}. Look at the usage, "
        "then accept the amount on the draft."
    )


def accept_amount(invoice_id: int) -> Invoice:
    """Let a draft be finalised although its fees are far above the account's own history.

    Up to the fees that it shows now. The account is taken up again if it was parked. Safe to
    repeat. Raises TransitionRefusedError when it is no draft, Invoice.DoesNotExist.
    """
    account_id = Invoice.objects.values_list("account_id", flat=True).get(pk=invoice_id)
    with transaction.atomic():
        lock_account(account_id)
        invoice = Invoice.objects.get(pk=invoice_id)
        if invoice.status != Invoice.Status.DRAFT:
            raise TransitionRefusedError(f"Invoice {invoice} is final already.")
        invoice.accepted_fees = invoice.subscription_fee + invoice.usage_fee
        invoice.save(update_fields=["accepted_fees"])
        unpark_account(account_id)
    return invoice
