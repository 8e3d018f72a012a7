from __future__ import annotations

from datetime import datetime

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q

from billing.charges import ChargeModel
from billing.models.accounts import Account
from billing.models.columns import (
    TsTzRange,
    amount_column,
    currency_column,
    has_known_currency,
    percent_column,
    unit_price_column,
    units_column,
)
from metering.meters import UNITS, Meter

CHARGES = [(model.value, model.value.replace("_", " ")) for model in ChargeModel]
ENDS_AFTER_START = "Let effective_to be later than effective_from."
TIERED = (ChargeModel.GRADUATED, ChargeModel.VOLUME)


class PriceBook(models.Model):
    """A list of prices that plans name; its versions say what held when."""

    code = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    # Whose own book it is. Empty: anybody's.
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, null=True, blank=True, related_name="price_books"
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class PriceBookVersion(models.Model):
    """The prices in force from one moment up to another.

    A window of usage is priced at the version in force at the window's start.
    """

    book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="versions")
    effective_from = models.DateTimeField()
    # Empty: until another version follows.
    effective_to = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("book", "-effective_from")
        constraints = (
            models.CheckConstraint(
                condition=Q(effective_to__isnull=True) | Q(effective_to__gt=F("effective_from")),
                name="price_book_version_ends_after_start",
                violation_error_message=ENDS_AFTER_START,
            ),
            ExclusionConstraint(
                name="versions_of_a_price_book_do_not_overlap",
                expressions=[
                    (
                        TsTzRange("effective_from", "effective_to", RangeBoundary()),
                        RangeOperators.OVERLAPS,
                    ),
                    ("book", RangeOperators.EQUAL),
                ],
                violation_error_message=(
                    "Another version of this book is in force in that time. End it first, "
                    "by its effective_to, or let this one start later."
                ),
            ),
        )

    def __str__(self) -> str:
        return f"{self.book} from {self.effective_from:%Y-%m-%d}"

    def clean(self) -> None:
        """Say it before PostgreSQL is asked about a span that is none, which it refuses to be."""
        start: datetime | None = self.effective_from  # None in a form that lacks it
        if start and self.effective_to and self.effective_to <= start:
            raise ValidationError({"effective_to": ENDS_AFTER_START})


class Price(models.Model):
    """How a meter is charged for in one currency. Units are the meter's shown ones.

    Which columns are set depends on the charge; tiers are rows of their own.
    """

    version = models.ForeignKey(PriceBookVersion, on_delete=models.PROTECT, related_name="prices")
    meter = models.CharField(max_length=32, choices=[(m.value, UNITS[m].shown) for m in Meter])
    currency = currency_column(default="USD")
    charge = models.CharField(max_length=16, choices=CHARGES, default=ChargeModel.PER_UNIT.value)
    # Of one unit, or of one package.
    unit_price = unit_price_column(null=True, blank=True)
    package_size = units_column(null=True, blank=True)
    percent = percent_column(null=True, blank=True)
    fee_per_event = unit_price_column(null=True, blank=True)
    maximum = amount_column(null=True, blank=True)
    # Of every charge: what comes first and free, and what a period costs at least.
    free_units = units_column(default=0)
    minimum = amount_column(default=0)

    class Meta:
        ordering = ("version", "meter", "currency")
        constraints = (
            models.UniqueConstraint(
                fields=["version", "meter", "currency"],
                name="meter_has_one_price_in_a_version_and_currency",
                violation_error_message="This version has a price for the meter. Change that one.",
            ),
            models.CheckConstraint(
                condition=(Q(unit_price__isnull=True) | Q(unit_price__gte=0))
                & (Q(fee_per_event__isnull=True) | Q(fee_per_event__gte=0))
                & (Q(maximum__isnull=True) | Q(maximum__gte=F("minimum")))
                & Q(free_units__gte=0, minimum__gte=0),
                name="price_is_not_negative_nor_its_maximum_below_its_minimum",
                violation_error_message=(
                    "Use 0 or more for every price, allowance and minimum, and a maximum that is "
                    "not below the minimum."
                ),
            ),
            models.CheckConstraint(
                condition=Q(percent__isnull=True) | Q(percent__gte=0, percent__lte=100),
                name="price_percent_is_from_0_to_100",
                violation_error_message="Use a percent from 0 to 100.",
            ),
            models.CheckConstraint(
                condition=Q(
                    charge="per_unit",
                    unit_price__isnull=False,
                    package_size__isnull=True,
                    percent__isnull=True,
                    fee_per_event__isnull=True,
                    maximum__isnull=True,
                )
                | Q(
                    charge="package",
                    unit_price__isnull=False,
                    package_size__isnull=False,
                    package_size__gt=0,
                    percent__isnull=True,
                    fee_per_event__isnull=True,
                    maximum__isnull=True,
                )
                | Q(
                    charge="percentage",
                    unit_price__isnull=True,
                    package_size__isnull=True,
                    percent__isnull=False,
                )
                | Q(
                    charge__in=[model.value for model in TIERED],
                    unit_price__isnull=True,
                    package_size__isnull=True,
                    percent__isnull=True,
                    fee_per_event__isnull=True,
                    maximum__isnull=True,
                ),
                name="price_has_the_columns_of_its_charge_and_no_others",
                violation_error_message=(
                    "Per unit needs unit_price; package needs unit_price and package_size; "
                    "percentage needs percent, and may have fee_per_event and maximum; graduated "
                    "and volume need tiers. Leave the rest empty."
                ),
            ),
            has_known_currency("price_currency_is_one_of_iso_4217"),
        )

    def __str__(self) -> str:
        if self.unit_price is not None and self.charge == ChargeModel.PER_UNIT:
            return f"{self.unit_price.normalize():f} {self.currency} per {self.get_meter_display()}"
        return f"{self.get_charge_display()}, {self.currency} per {self.get_meter_display()}"


class PriceTier(models.Model):
    """One tier of a graduated or volume price: up to and with unit number `up_to`.

    A trigger refuses tiers that are out of order or have no open last one, at the commit.
    """

    price = models.ForeignKey(Price, on_delete=models.CASCADE, related_name="tiers")
    position = models.PositiveSmallIntegerField()
    # Empty: without end, as the last tier is.
    up_to = units_column(null=True, blank=True)
    unit_price = unit_price_column()
    flat_fee = amount_column(default=0)

    class Meta:
        ordering = ("price", "position")
        constraints = (
            models.UniqueConstraint(
                fields=["price", "position"], name="tiers_of_a_price_have_an_order"
            ),
            models.CheckConstraint(
                condition=Q(unit_price__gte=0, flat_fee__gte=0)
                & (Q(up_to__isnull=True) | Q(up_to__gt=0)),
                name="tier_is_not_negative_and_ends_above_0",
                violation_error_message="Use 0 or more for prices and fees, and up_to above 0.",
            ),
        )

    def __str__(self) -> str:
        return f"up to {self.up_to}" if self.up_to is not None else "above"
