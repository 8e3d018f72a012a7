from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

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
    percent_column,
    unit_price_column,
)
from billing.models.discounts import DiscountRule
from billing.models.prices import CHARGES
from billing.rating import Unpriced
from metering.meters import UNITS, Meter
from metering.period import Period

_BILLS_A_PERIOD_AND_IS_NOT_VOID = Q(kind__in=["usage", "final"]) & ~Q(status="void")
_WITHOUT_TAX = (
    F("subscription_fee")
    + F("usage_fee")
    - F("discounts")
    - F("credits_used")
    + F("adjustments")
    + F("credited")
)
_METERS = [(meter.value, meter.value) for meter in Meter]


class Invoice(models.Model):
    """What an account owes for one period.

    A draft's figures are brought up to date until it is finalised; after that they stay.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"
        # Of a period that a cancellation ended.
        FINAL = "final"

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

    class Meta:
        ordering = ("-period_start", "-id")
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
            has_known_currency("invoice_currency_is_one_of_iso_4217"),
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
    A usage line without a unit price has parts that say how its amount came about.
    """

    class Kind(models.TextChoices):
        FEE = "fee"
        UNUSED_FEE = "unused_fee"
        FEE_DISCOUNT = "fee_discount"
        TRUE_UP = "true_up"
        USAGE = "usage"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=16, choices=Kind)
    position = models.PositiveIntegerField()
    description = models.CharField(max_length=200)
    # Empty on lines that are not usage, as is the charge.
    meter = models.CharField(max_length=32, choices=_METERS, blank=True, default="")
    charge = models.CharField(max_length=16, choices=CHARGES, blank=True, default="")
    # Whole base units, so that the line is exact: nanoseconds, byte-milliseconds, seconds.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    base_unit = models.CharField(max_length=32)
    # The unit of the price, and how many base units it has.
    unit = models.CharField(max_length=32)
    unit_size = models.DecimalField(max_digits=20, decimal_places=0)
    unit_price = unit_price_column(null=True, blank=True)
    amount = amount_column()
    # Its share of the discounts on usage; not taken off `amount`.
    discount = amount_column(default=0)
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
                condition=(Q(kind="usage") & ~Q(meter="") & ~Q(charge=""))
                | (~Q(kind="usage") & Q(meter="", charge="")),
                name="usage_line_names_its_meter_and_charge",
            ),
            models.CheckConstraint(
                condition=Q(quantity__gte=0, unit_size__gt=0, discount__gte=0)
                & (Q(unit_price__isnull=True) | Q(unit_price__gte=0))
                & (
                    Q(kind__in=["fee", "true_up", "usage"], amount__gte=0)
                    | Q(kind__in=["unused_fee", "fee_discount"], amount__lte=0)
                ),
                name="invoice_line_has_the_sign_of_its_kind",
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


class InvoiceLinePart(models.Model):
    """How a part of a line's exact cost came about: one tier, the free units, a minimum.

    Its cost is quantity × unit_price ÷ unit_size; a minimum or maximum has its level as the unit
    price, and is what brings the other parts to that level.
    """

    line = models.ForeignKey(InvoiceLine, on_delete=models.CASCADE, related_name="parts")
    position = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=16)
    tier = models.PositiveSmallIntegerField(null=True, blank=True)
    # Base units, or packages or events where unit_size is 1.
    quantity = models.DecimalField(max_digits=46, decimal_places=6)
    unit_size = models.DecimalField(max_digits=20, decimal_places=0)
    unit_price = unit_price_column()

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["line", "position"], name="parts_of_an_invoice_line_have_an_order"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.tier}" if self.tier else self.kind

    @property
    def exact_quantity(self) -> Fraction:
        """The exact quantity in shown units, packages or events."""
        return Fraction(self.quantity) / Fraction(self.unit_size)


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

    def __str__(self) -> str:
        return f"{self.from_status} to {self.to_status}"


class InvoiceDiscount(models.Model):
    """What one rule took off an invoice, with a copy of what it rests on."""

    class Base(models.TextChoices):
        USAGE_FEE = "usage_fee"
        ANNUAL_FEE = "annual_fee"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="applied_discounts")
    position = models.PositiveSmallIntegerField()
    rule = models.ForeignKey(DiscountRule, on_delete=models.PROTECT, null=True, blank=True)
    name = models.CharField(max_length=100)
    base = models.CharField(max_length=16, choices=Base)
    base_amount = amount_column()
    percent = percent_column()
    fixed_amount = amount_column()
    amount = amount_column()

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["invoice", "position"], name="discounts_of_an_invoice_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(amount__gt=0, amount__lte=F("base_amount")),
                name="discount_takes_something_and_not_more_than_its_base",
            ),
        )

    def __str__(self) -> str:
        return self.name


class UnpricedUsage(models.Model):
    """Usage of a period that no price was found for, as of the last look. Replaced each time."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="unpriced_usage")
    billing_period_start = models.DateTimeField()
    meter = models.CharField(max_length=32, choices=_METERS)
    reason = models.CharField(max_length=32, choices=[(r.value, r.value) for r in Unpriced])
    # Base units.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    noted_at = models.DateTimeField()

    class Meta:
        ordering = ("-period_start", "meter")
        verbose_name_plural = "unpriced usage"
        constraints = (
            models.UniqueConstraint(
                fields=["account", "meter", "period_start"],
                name="unpriced_usage_of_a_meter_is_noted_once_a_span",
            ),
        )

    def __str__(self) -> str:
        return f"{self.meter} of {self.account}"

    @property
    def exact_quantity(self) -> Fraction:
        """The exact quantity in the meter's shown unit."""
        return UNITS[Meter(self.meter)].shown_quantity(int(self.quantity))


class InvoiceSeries(models.Model):
    """The counter of one year's invoice numbers. Its row stays locked until the number is used."""

    year = models.PositiveIntegerField(primary_key=True)
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "invoice series"

    def __str__(self) -> str:
        return str(self.year)
