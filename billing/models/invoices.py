from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account
from billing.models.columns import (
    IS_CURRENCY_CODE,
    TsTzRange,
    amount_column,
    currency_column,
    unit_price_column,
)
from metering.meters import Meter
from metering.period import Period

_IS_USAGE_AND_NOT_VOID = Q(kind="usage") & ~Q(status="void")


class Invoice(models.Model):
    """What an account owes for one period.

    A draft's figures are brought up to date until it is finalised; after that they stay.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"

    class Status(models.TextChoices):
        DRAFT = "draft"
        PENDING = "pending"
        PAID = "paid"
        VOID = "void"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="invoices")
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.USAGE)
    status = models.CharField(max_length=16, choices=Status, default=Status.DRAFT)
    # Given when it is finalised, without gaps. A draft has none.
    number = models.CharField(max_length=32, null=True, blank=True, unique=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    currency = currency_column()
    # Copied from the account when the figures were made.
    tax_rate = models.DecimalField(max_digits=6, decimal_places=5, default=Decimal(0))

    subscription_fee = amount_column(default=0)
    usage_fee = amount_column(default=0)
    discounts = amount_column(default=0)
    credits_used = amount_column(default=0)
    adjustments = amount_column(default=0)
    tax = amount_column(default=0)
    total_amount = amount_column(default=0)
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

    class Meta:
        ordering = ("-period_start", "-id")
        constraints = (
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="invoice_period_ends_after_start",
            ),
            models.UniqueConstraint(
                fields=["account", "period_start", "period_end"],
                condition=_IS_USAGE_AND_NOT_VOID,
                name="usage_of_an_account_is_invoiced_once_a_period",
            ),
            ExclusionConstraint(
                name="usage_invoice_periods_do_not_overlap",
                condition=_IS_USAGE_AND_NOT_VOID,
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
                    status__in=["pending", "paid"],
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
                condition=Q(
                    total_amount=F("subscription_fee")
                    + F("usage_fee")
                    - F("discounts")
                    - F("credits_used")
                    + F("adjustments")
                    + F("tax")
                ),
                name="invoice_total_is_the_sum_of_its_parts",
            ),
            models.CheckConstraint(
                condition=Q(amount_due=F("total_amount")), name="invoice_due_is_its_total"
            ),
            models.CheckConstraint(
                condition=Q(
                    subscription_fee__gte=0,
                    usage_fee__gte=0,
                    discounts__gte=0,
                    credits_used__gte=0,
                    tax__gte=0,
                    total_amount__gte=0,
                ),
                name="invoice_figures_are_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(usage_fee__gte=F("discounts") + F("credits_used")),
                name="discounts_and_credits_pay_usage_only",
            ),
            models.CheckConstraint(condition=IS_CURRENCY_CODE, name="invoice_has_a_currency_code"),
        )
        indexes = (
            models.Index(
                fields=["tried_at", "finalise_after"],
                condition=Q(status="draft"),
                name="drafts_by_last_try",
            ),
        )

    def __str__(self) -> str:
        return self.number or f"Draft for {self.period_start:%Y-%m}"

    @property
    def period(self) -> Period:
        """The span of time that is invoiced."""
        return Period(self.period_start, self.period_end)


class InvoiceLine(models.Model):
    """One line of an invoice, with a copy of everything its amount rests on.

    amount = quantity × unit_price ÷ unit_size, rounded once to the currency's smallest unit.
    """

    class Kind(models.TextChoices):
        FEE = "fee"
        USAGE = "usage"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=16, choices=Kind)
    position = models.PositiveIntegerField()
    description = models.CharField(max_length=200)
    # Empty on lines that are not usage.
    meter = models.CharField(
        max_length=32, choices=[(m.value, m.value) for m in Meter], blank=True, default=""
    )
    # Whole base units, so that the line is exact: nanoseconds, byte-milliseconds, seconds.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    base_unit = models.CharField(max_length=32)
    # The unit of the price, and how many base units it has.
    unit = models.CharField(max_length=32)
    unit_size = models.DecimalField(max_digits=20, decimal_places=0)
    unit_price = unit_price_column()
    amount = amount_column()
    # Its own span: part of the invoice's when prices or the plan changed inside it.
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["invoice", "position"], name="invoice_lines_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(kind="usage") & ~Q(meter="") | ~Q(kind="usage") & Q(meter=""),
                name="usage_line_names_its_meter",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gt=0, unit_size__gt=0, unit_price__gte=0, amount__gte=0),
                name="invoice_line_figures_are_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")),
                name="invoice_line_period_ends_after_start",
            ),
        )

    def __str__(self) -> str:
        return self.description

    @property
    def period(self) -> Period:
        """The span of time the line is about."""
        return Period(self.period_start, self.period_end)

    @property
    def exact_quantity(self) -> Fraction:
        """The exact quantity in `unit`."""
        return Fraction(int(self.quantity), int(self.unit_size))


class InvoiceSeries(models.Model):
    """The counter of one year's invoice numbers. Its row stays locked until the number is used."""

    year = models.PositiveIntegerField(primary_key=True)
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "invoice series"

    def __str__(self) -> str:
        return str(self.year)
