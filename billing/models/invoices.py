from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Q

from billing.lifecycle import InvoiceStatus
from billing.models.accounts import Account
from billing.models.columns import (
    TsTzRange,
    amount_column,
    currency_column,
    has_known_currency,
)
from metering.period import Period

_BILLS_A_PERIOD_AND_IS_NOT_VOID = Q(kind__in=["usage", "final"]) & ~Q(status="void")
_WITHOUT_TAX = (
    F("subscription_fee")
    + F("usage_fee")
    - F("discounts")
    - F("credits_used")
    + F("adjustments")
    + F("credited")
    + F("top_up")
)


class Invoice(models.Model):
    """What an account owes for one period, or paid for in advance.

    A draft's figures are brought up to date until it is finalised; after that they stay.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"
        # Of a period that a cancellation ended.
        FINAL = "final"
        # A copy of what a payment provider invoiced by itself, under the provider's number.
        SUBSCRIPTION = "subscription"
        # Prepaid credit that was bought.
        TOP_UP = "top_up"

    class Status(models.TextChoices):
        DRAFT = InvoiceStatus.DRAFT.value
        PENDING = InvoiceStatus.PENDING.value
        PAID = InvoiceStatus.PAID.value
        PAYMENT_FAILED = InvoiceStatus.PAYMENT_FAILED.value
        PENDING_RETRY = InvoiceStatus.PENDING_RETRY.value
        UNCOLLECTIBLE = InvoiceStatus.UNCOLLECTIBLE.value
        VOID = InvoiceStatus.VOID.value

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.USAGE)
    status = models.CharField(max_length=16, choices=Status, default=Status.DRAFT)
    # The invoice of the same period that was voided for this one.
    replaces = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="replaced_by"
    )
    # Given when it is finalised, without gaps. A draft has none.
    number = models.CharField(max_length=32, null=True, blank=True, unique=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    currency = currency_column()
    # Copied from the account when the figures were made.
    tax_rate = models.DecimalField(max_digits=6, decimal_places=5, default=Decimal(0))
    tax_is_inclusive = models.BooleanField(default=False)

    subscription_fee = amount_column(default=0)
    usage_fee = amount_column(default=0)
    discounts = amount_column(default=0)
    credits_used = amount_column(default=0)
    adjustments = amount_column(default=0)
    tax = amount_column(default=0)
    # What a remainder below zero became: prepaid credit. It lifts the total to zero.
    credited = amount_column(default=0)
    # Prepaid credit that was bought. It is taxed when it is spent.
    top_up = amount_column(default=0)
    total_amount = amount_column(default=0)
    prepaid_used = amount_column(default=0)
    amount_due = amount_column(default=0)

    drafted_at = models.DateTimeField()
    # When the figures were made. Of a draft, they tell what was known then.
    computed_at = models.DateTimeField()
    # The end of the grace that late readings have.
    finalise_after = models.DateTimeField()
    # When the sweep last tried to finalise it; those left alone longest come first.
    tried_at = models.DateTimeField(null=True, blank=True)
    # What finalising still waits for, in words. Empty: nothing, or it was not tried.
    waiting_for = models.TextField(blank=True, default="")
    finalised_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)

    # What is printed beside the figures, as it was when the invoice became final: later changes
    # of a name or an address are of later invoices. Empty on drafts, and on invoices from before
    # this was kept.
    issued_on = models.DateField(null=True, blank=True)
    due_on = models.DateField(null=True, blank=True)
    # billing.parties.Party, as it writes itself.
    seller = models.JSONField(default=dict, blank=True)
    buyer = models.JSONField(default=dict, blank=True)
    tax_name = models.CharField(max_length=32, blank=True, default="")
    payment_terms = models.TextField(blank=True, default="")
    # The account's at the end of the period; the period's bounds are its midnights.
    time_zone = models.CharField(max_length=64, blank=True, default="")
    anchor_day = models.PositiveSmallIntegerField(null=True, blank=True)
    # SHA-256 over the hashes of its evidence, hexadecimal.
    evidence_hash = models.CharField(max_length=64, blank=True, default="")
    # The fees that a person found right although they are far above the account's own history.
    accepted_fees = amount_column(null=True, blank=True)

    class Meta:
        ordering = ("-period_start", "-id")
        # Beside Django's own: what needs more than the right to change an invoice.
        permissions = (
            ("void_invoice", "Can void invoice"),
            ("write_off_invoice", "Can write off invoice"),
            ("approve_correction", "Can approve re-rating or credit note"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="invoice_period_ends_after_start",
            ),
            models.UniqueConstraint(
                fields=["account", "period_start", "period_end"],
                condition=_BILLS_A_PERIOD_AND_IS_NOT_VOID,
                name="usage_of_an_account_is_invoiced_once_a_period",
            ),
            ExclusionConstraint(
                name="usage_invoice_periods_do_not_overlap",
                condition=_BILLS_A_PERIOD_AND_IS_NOT_VOID,
                expressions=[
                    (
                        TsTzRange("period_start", "period_end", RangeBoundary()),
                        RangeOperators.OVERLAPS,
                    ),
                    ("account", RangeOperators.EQUAL),
                ],
            ),
            models.CheckConstraint(
                condition=Q(status="draft", number__isnull=True, finalised_at__isnull=True)
                | Q(
                    status__in=[
                        "pending",
                        "paid",
                        "payment_failed",
                        "pending_retry",
                        "uncollectible",
                    ],
                    number__isnull=False,
                    finalised_at__isnull=False,
                )
                | Q(status="void"),
                name="final_invoice_has_a_number_and_a_draft_has_none",
            ),
            models.CheckConstraint(
                condition=Q(status="paid", paid_at__isnull=False)
                | (~Q(status="paid") & Q(paid_at__isnull=True)),
                name="paid_invoice_says_when",
            ),
            models.CheckConstraint(
                condition=Q(tax_is_inclusive=False, total_amount=_WITHOUT_TAX + F("tax"))
                | Q(tax_is_inclusive=True, total_amount=_WITHOUT_TAX),
                name="invoice_total_is_the_sum_of_its_parts",
            ),
            models.CheckConstraint(
                condition=Q(amount_due=F("total_amount") - F("prepaid_used")),
                name="invoice_due_is_its_total_less_prepaid_credit",
            ),
            models.CheckConstraint(
                condition=Q(
                    usage_fee__gte=0,
                    discounts__gte=0,
                    credits_used__gte=0,
                    credited__gte=0,
                    top_up__gte=0,
                    total_amount__gte=0,
                    prepaid_used__gte=0,
                    amount_due__gte=0,
                ),
                name="invoice_figures_are_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(usage_fee__gte=F("discounts") + F("credits_used")),
                name="discounts_and_credits_pay_usage_only",
            ),
            models.CheckConstraint(
                condition=Q(kind="top_up") | Q(top_up=0),
                name="only_a_top_up_invoice_sells_prepaid_credit",
            ),
            models.CheckConstraint(
                condition=Q(issued_on__isnull=True, due_on__isnull=True)
                | Q(
                    issued_on__isnull=False,
                    due_on__isnull=False,
                    due_on__gte=F("issued_on"),
                    number__isnull=False,
                ),
                name="issued_invoice_is_due_then_or_later",
            ),
            has_known_currency("invoice_currency_is_one_of_iso_4217"),
        )
        indexes = (
            # As the billing run goes through them: those that were never tried come first.
            models.Index(
                F("tried_at").asc(nulls_first=True),
                "finalise_after",
                "id",
                condition=Q(status="draft"),
                name="drafts_by_last_try",
            ),
            models.Index(
                fields=["status", "currency"],
                condition=Q(status__in=["pending", "payment_failed", "pending_retry"]),
                include=["amount_due"],
                name="invoices_outstanding",
            ),
            models.Index(
                fields=["finalised_at"],
                condition=Q(finalised_at__isnull=False),
                include=["currency", "status", "total_amount", "tax"],
                name="invoices_by_finalising",
            ),
        )

    def __str__(self) -> str:
        return self.number or f"Draft for {self.period_start:%Y-%m}"

    @property
    def period(self) -> Period:
        """The span of time that is invoiced."""
        return Period(self.period_start, self.period_end)


class InvoiceTransition(models.Model):
    """An invoice went from one state to another: when, by whom and why.

    Append-only: the application's database role may not update, delete or truncate.
    """

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="transitions")
    from_status = models.CharField(max_length=16, choices=Invoice.Status)
    to_status = models.CharField(max_length=16, choices=Invoice.Status)
    # Empty: the system by itself.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    reason = models.CharField(max_length=200)
    at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (models.CheckConstraint(condition=~Q(reason=""), name="transition_says_why"),)
        indexes = (
            # The sweep of e-mails asks for the newest of these every few seconds.
            models.Index(
                fields=["at"],
                condition=Q(to_status__in=["pending", "payment_failed"]),
                name="transitions_that_are_told_of",
            ),
            # So does the sweep of events.
            models.Index(
                fields=["at"],
                condition=Q(to_status__in=["pending", "paid", "payment_failed"]),
                name="transitions_that_are_events",
            ),
        )

    def __str__(self) -> str:
        return f"{self.from_status} to {self.to_status}"


class Series(models.TextChoices):
    """What has numbers of its own."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class NumberSeries(models.Model):
    """The counter of one series' numbers of a year. Its row stays locked until they are used."""

    series = models.CharField(max_length=16, choices=Series)
    year = models.PositiveIntegerField()
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "number series"
        constraints = (
            models.UniqueConstraint(
                fields=["series", "year"], name="series_has_one_counter_a_year"
            ),
        )

    def __str__(self) -> str:
        return f"{self.series} {self.year}"
