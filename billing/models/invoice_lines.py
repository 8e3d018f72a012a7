"""What an invoice says line by line."""

from __future__ import annotations

from fractions import Fraction

from django.db import models
from django.db.models import F, Q

from billing.models.accounts import Account
from billing.models.columns import amount_column, percent_column, unit_price_column
from billing.models.discounts import DiscountRule
from billing.models.invoices import Invoice
from billing.models.prices import CHARGES
from billing.rating import Unpriced
from metering.meters import UNITS, Meter
from metering.period import Period

_METERS = [(meter.value, meter.value) for meter in Meter]


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
        # What an earlier period came to differently, once late usage or a mistake was known.
        ADJUSTMENT = "adjustment"
        TOP_UP = "top_up"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    kind = models.CharField(max_length=16, choices=Kind)
    position = models.PositiveIntegerField()
    description = models.CharField(max_length=200)
    # Empty on lines that are not about usage, as is the charge. An adjustment has no charge: its
    # amount is a difference.
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
                | Q(kind="adjustment", charge="")
                | (~Q(kind__in=["usage", "adjustment"]) & Q(meter="", charge="")),
                name="usage_line_names_its_meter_and_charge",
            ),
            models.CheckConstraint(
                condition=Q(unit_size__gt=0, discount__gte=0)
                & (Q(kind="adjustment") | Q(quantity__gte=0))
                & (Q(unit_price__isnull=True) | Q(unit_price__gte=0))
                & (
                    Q(kind__in=["fee", "true_up", "usage", "top_up"], amount__gte=0)
                    | Q(kind__in=["unused_fee", "fee_discount"], amount__lte=0)
                    | Q(kind="adjustment", discount=0)
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
