"""Corrections of final invoices: proposals, and the credit notes that come of them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from billing.adjustments import Component
from billing.models.columns import amount_column, currency_column, has_known_currency
from billing.models.credits import CreditGrant
from billing.models.invoice_lines import InvoiceLine
from billing.models.invoices import Invoice
from metering.meters import Meter

METERS = [(meter.value, meter.value) for meter in Meter]
COMPONENTS = [(component.value, component.value) for component in Component]


def _user(**options: Any) -> models.ForeignKey[Any, Any]:
    return models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        **options,
    )


class Correction(models.Model):
    """By how much a final invoice is to be corrected, who says so and why.

    A large one waits for a second person. Once it is applied it stays as it is.
    """

    class Origin(models.TextChoices):
        # The period was stated again.
        RERATING = "rerating"
        # A person said how much.
        BY_HAND = "by_hand"

    class Status(models.TextChoices):
        PROPOSED = "proposed"
        APPLIED = "applied"
        REJECTED = "rejected"

    class Settlement(models.TextChoices):
        CREDIT_NOTE = "credit_note"
        # Lines of the account's next invoice.
        ADJUSTMENT = "adjustment"
        # It comes to nothing in money: credit moved, or one line against another.
        NONE = "none"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="corrections")
    origin = models.CharField(max_length=16, choices=Origin)
    status = models.CharField(max_length=16, choices=Status, default=Status.PROPOSED)
    settlement = models.CharField(max_length=16, choices=Settlement)
    currency = currency_column()
    # What the account pays more, below zero: less. The sum of the lines; of a credit note without
    # the tax that is part of them.
    net = amount_column()
    # Of a credit note; of lines for the next invoice, the tax is made there.
    tax = amount_column(default=0)
    reason = models.CharField(max_length=200)
    # The author's own name for it, under which it is proposed once.
    reference = models.CharField(max_length=100, blank=True, default="")
    # Empty: a command.
    author = _user()
    proposed_at = models.DateTimeField()
    # Who let a large one happen, or rejected it. Empty: nobody had to.
    decided_by = _user()
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(status="proposed"),
                name="invoice_has_one_open_correction",
            ),
            models.UniqueConstraint(
                fields=["invoice", "reference"],
                condition=~Q(reference=""),
                name="correction_is_proposed_once_under_a_reference",
            ),
            models.CheckConstraint(
                condition=Q(author__isnull=True)
                | Q(decided_by__isnull=True)
                | Q(status="rejected")
                | ~Q(author=F("decided_by")),
                name="correction_is_approved_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(status="proposed", decided_at__isnull=True, decided_by__isnull=True)
                | Q(status__in=["applied", "rejected"], decided_at__isnull=False),
                name="decided_correction_says_when",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="correction_says_why"),
            models.CheckConstraint(
                condition=Q(settlement="credit_note", net__lte=0, tax__lte=0)
                | Q(settlement="adjustment", tax=0)
                | Q(settlement="none", net=0, tax=0),
                name="correction_is_settled_as_its_sign_says",
            ),
            has_known_currency("correction_currency_is_one_of_iso_4217"),
        )

    def __str__(self) -> str:
        return f"Correction {self.pk} of {self.invoice}"


class CorrectionLine(models.Model):
    """What one part of the invoice's period comes to more, or less below zero. Never changed."""

    correction = models.ForeignKey(Correction, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    component = models.CharField(max_length=16, choices=COMPONENTS)
    # The line that is credited; empty where the difference is in none or in several.
    invoice_line = models.ForeignKey(
        InvoiceLine, on_delete=models.PROTECT, null=True, blank=True, related_name="corrections"
    )
    # Of credit: the grant that pays, or that has something back.
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, null=True, blank=True)
    description = models.CharField(max_length=200)
    meter = models.CharField(max_length=32, choices=METERS, blank=True, default="")
    # Base units; negative where there were fewer.
    quantity = models.DecimalField(max_digits=40, decimal_places=0, default=0)
    amount = amount_column()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["correction", "position"], name="lines_of_a_correction_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(component="credit", grant__isnull=False)
                | (~Q(component="credit") & Q(grant__isnull=True)),
                name="correction_of_credit_names_the_grant",
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="correction_line_period_ends_after_start",
            ),
        )

    def __str__(self) -> str:
        return self.description


class CreditNote(models.Model):
    """So much of a final invoice is taken back. Frozen from the start, as a final invoice is.

    Together the notes of an invoice take back no more than it asked for, tax and total alike.
    """

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_notes")
    correction = models.OneToOneField(
        Correction, on_delete=models.PROTECT, related_name="credit_note"
    )
    # Without gaps, in a series of its own.
    number = models.CharField(max_length=32, unique=True)
    currency = currency_column()
    reason = models.CharField(max_length=200)
    author = _user()
    approved_by = _user()
    net = amount_column()
    tax = amount_column()
    total = amount_column()
    # How it is settled: so much less is owed of the invoice, and the rest is prepaid credit.
    off_due = amount_column()
    as_credit = amount_column()
    grant = models.OneToOneField(
        CreditGrant, on_delete=models.PROTECT, null=True, blank=True, related_name="credit_note"
    )
    issued_on = models.DateField()
    issued_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                condition=Q(net__gte=0, tax__gte=0, total__gt=0, total=F("net") + F("tax")),
                name="credit_note_total_is_net_and_tax",
            ),
            models.CheckConstraint(
                condition=Q(off_due__gte=0, as_credit__gte=0, total=F("off_due") + F("as_credit")),
                name="credit_note_is_settled_in_full",
            ),
            models.CheckConstraint(
                condition=Q(as_credit=0, grant__isnull=True)
                | Q(as_credit__gt=0, grant__isnull=False),
                name="credit_note_names_the_credit_it_became",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="credit_note_says_why"),
            has_known_currency("credit_note_currency_is_one_of_iso_4217"),
        )

    def __str__(self) -> str:
        return self.number


class CreditNoteLine(models.Model):
    """What of the invoice is taken back, below zero what counts against it.

    The lines sum to the note's net, or to its total where prices contain the tax.
    """

    credit_note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    invoice_line = models.ForeignKey(
        InvoiceLine, on_delete=models.PROTECT, null=True, blank=True, related_name="credited_by"
    )
    description = models.CharField(max_length=200)
    amount = amount_column()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["credit_note", "position"], name="lines_of_a_credit_note_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="credit_note_line_period_ends_after_start",
            ),
        )

    def __str__(self) -> str:
        return self.description
