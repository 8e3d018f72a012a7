from __future__ import annotations

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Q

from billing.models.columns import (
    IS_CURRENCY_CODE,
    TsTzRange,
    currency_column,
    unit_price_column,
)
from metering.meters import UNITS, Meter


class PriceBook(models.Model):
    """A list of prices that plans name; its versions say what held when."""

    code = models.SlugField(unique=True)
    name = models.CharField(max_length=100)

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
            ),
        )

    def __str__(self) -> str:
        return f"{self.book} from {self.effective_from:%Y-%m-%d}"


class Price(models.Model):
    """What one shown unit of a meter costs, in one currency."""

    version = models.ForeignKey(PriceBookVersion, on_delete=models.PROTECT, related_name="prices")
    meter = models.CharField(max_length=32, choices=[(m.value, UNITS[m].shown) for m in Meter])
    currency = currency_column(default="USD")
    unit_price = unit_price_column()

    class Meta:
        ordering = ("version", "meter", "currency")
        constraints = (
            models.UniqueConstraint(
                fields=["version", "meter", "currency"],
                name="meter_has_one_price_in_a_version_and_currency",
            ),
            models.CheckConstraint(
                condition=Q(unit_price__gte=0), name="unit_price_is_not_negative"
            ),
            models.CheckConstraint(condition=IS_CURRENCY_CODE, name="price_has_a_currency_code"),
        )

    def __str__(self) -> str:
        return f"{self.unit_price.normalize():f} {self.currency} per {self.get_meter_display()}"
