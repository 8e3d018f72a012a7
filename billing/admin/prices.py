from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.forms import PaginationInlineFormSet

from billing.admin.asking import (
    MISSING,
    AsksWhy,
    CheckedForm,
    money_text,
    price_text,
)
from billing.admin.export_tables import PRICES, TIERS
from billing.admin.import_tables import PriceResource
from billing.admin.importing import Imports
from billing.admin.settled_prices import STAYS, is_settled
from billing.models import Price, PriceBookVersion, PriceTier
from billing.models.prices import TIERED
from metering.pages import Page, TabularInline


def price_summary(price: Price) -> str:
    """Return what a price asks for, without its tiers."""
    currency, unit = price.currency, price.get_meter_display()
    if price.charge in TIERED:
        text = f"{price.get_charge_display()}, by {unit}"
    elif price.charge == "percentage":
        text = f"{price_text(price.percent)} % of {unit}"
        if price.fee_per_event:
            text += f" and {price_text(price.fee_per_event)} {currency} a start"
        if price.maximum is not None:
            text += f", at most {money_text(price.maximum, currency)}"
    elif price.charge == "package":
        text = (
            f"{price_text(price.unit_price)} {currency} for {price_text(price.package_size)} {unit}"
        )
    else:
        text = f"{price_text(price.unit_price)} {currency} per {unit}"
    if price.free_units:
        text += f", the first {price_text(price.free_units)} free"
    if price.minimum:
        text += f", at least {money_text(price.minimum, currency)}"
    return text


def tier_texts(price: Price) -> list[str]:
    """Return a price's tiers, each in words."""
    return [
        ("above" if tier.up_to is None else f"up to {price_text(tier.up_to)}")
        + f": {price_text(tier.unit_price)} {price.currency}"
        + (f" and {money_text(tier.flat_fee, price.currency)} once" if tier.flat_fee else "")
        for tier in price.tiers.all()
    ]


class PriceInWords:
    """The columns of a price."""

    @admin.display(description="price", ordering="unit_price")
    def in_words(self, price: Price) -> str:
        """Return what the price asks for."""
        return price_summary(price)

    @admin.display(description="tiers")
    def tiers_in_words(self, price: Price) -> SafeString | str:
        """Return the price's tiers, a line each."""
        texts = ((text,) for text in tier_texts(price))
        return format_html_join("", "<div>{}</div>", texts) or MISSING


def tiers_refusal(charge: str, up_to: Sequence[Decimal | None]) -> str:
    """Return why the tiers of a price, in order, cannot be; empty if they can.

    The database says the same at the commit.
    """
    if charge not in TIERED:
        name = charge.replace("_", " ")
        return (
            f"A {name} price has no tiers. Delete them, or charge graduated or volume."
            if up_to
            else ""
        )
    if not up_to:
        return f"A {charge} price needs tiers. Add at least one, with up_to left empty."
    if up_to[-1] is not None or None in up_to[:-1]:
        return "Leave up_to empty in the last tier, and only there."
    edges = [edge for edge in up_to if edge is not None]
    if any(upper <= lower for lower, upper in pairwise(edges)):
        return "Tiers are out of order. Let every up_to be more than the one before."
    return ""


class TierForm(CheckedForm[PriceTier]):
    """One tier."""

    # All tiers are written anew, so a position that a row has now may be another's then.
    unchecked = frozenset({"price"})


class TierFormSet(PaginationInlineFormSet):  # type: ignore[misc]  # unfold has no types
    """All tiers of a price: whether they fit one another and the charge."""

    def clean(self) -> None:
        """Raise ValidationError when the tiers are not those of the price's charge."""
        super().clean()
        if any(self.errors) or not self.instance.charge:
            return
        tiers = sorted(self.kept(), key=lambda tier: tier.position)
        positions = [tier.position for tier in tiers]
        if len(set(positions)) < len(positions):
            raise forms.ValidationError("Two tiers have one position. Give each its own.")
        if refusal := tiers_refusal(self.instance.charge, [tier.up_to for tier in tiers]):
            raise forms.ValidationError(refusal)

    def kept(self) -> list[PriceTier]:
        """Return the tiers as typed, without those to be deleted and the empty rows."""
        return [
            form.instance
            for form in self.forms
            if not self._should_delete_form(form) and (form.has_changed() or form.instance.pk)
        ]

    def save(self, commit: Any = True) -> list[PriceTier]:  # noqa: FBT002 - as Django calls it
        """Write the tiers in place of those there were."""
        del commit
        self.new_objects: list[PriceTier] = []
        self.changed_objects: list[tuple[PriceTier, list[str]]] = []
        self.deleted_objects: list[PriceTier] = []
        if not self.has_changed():
            return []
        self.instance.tiers.all().delete()
        for tier in self.kept():
            tier.pk, tier.price = None, self.instance
            tier.save(force_insert=True)
            self.new_objects.append(tier)
        return self.new_objects


class TierRows(TabularInline[PriceTier, Price]):
    """A price's tiers."""

    model = PriceTier
    hide_title = True
    form = TierForm
    formset = TierFormSet
    fields = ("position", "up_to", "unit_price", "flat_fee")
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether tiers may be added: as a price may be changed."""
        return _may_write(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether tiers may be changed."""
        return _may_write(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether tiers may be deleted."""
        return _may_write(request, obj)

    def has_view_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether tiers may be seen: where the price may."""
        del obj
        return request.user.has_perm("billing.view_price") or _may_write(request, None)


def _may_write(request: HttpRequest, price: Price | None) -> bool:
    rights = {"billing.add_price"} if price is None else {"billing.change_price"}
    is_open = price is None or not is_settled(price.version, datetime.now(UTC))
    return is_open and request.user.has_perms(rights)


class PriceForm(CheckedForm[Price]):
    """What a meter costs."""

    also_checked = frozenset({"version"})

    def clean(self) -> dict[str, Any] | None:
        """Refuse a new price in a version whose prices have to stay."""
        cleaned = super().clean() or self.cleaned_data
        version: PriceBookVersion | None = cleaned.get("version")
        if version and is_settled(version, datetime.now(UTC)):
            # What a currency lacks was a mistake: no usage of it was invoiced yet.
            meters = version.prices.filter(meter=cleaned.get("meter"))
            if not meters.exists() or meters.filter(currency=cleaned.get("currency")).exists():
                self.add_error("version", f"{version} is in force. {STAYS}")
        return cleaned


@admin.register(Price)
class PriceAdmin(Imports, AsksWhy, PriceInWords, Page[Price]):
    """How a meter is charged for in one version and currency."""

    form = PriceForm
    export_tables = (PRICES, TIERS)
    import_resource = PriceResource
    import_rights = ("billing.add_price", "billing.change_price")
    list_display = ("meter", "version", "in_words", "charge", "currency", "tiers_in_words")
    list_filter = ("charge", "meter", "currency", "version__book")
    list_select_related = ("version__book",)
    search_fields = ("version__book__name", "meter")
    autocomplete_fields = ("version",)
    inlines = (TierRows,)
    fieldsets = (
        (None, {"fields": (("version", "meter"), ("currency", "charge"))}),
        (
            "Per unit and package",
            {"fields": (("unit_price", "package_size"),)},
        ),
        ("Percentage", {"fields": (("percent", "fee_per_event"), "maximum")}),
        ("Every charge", {"fields": (("free_units", "minimum"),)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        """Return the prices with their tiers."""
        return (
            super().get_queryset(request).select_related("version__book").prefetch_related("tiers")
        )

    def get_readonly_fields(
        self, request: HttpRequest, obj: Price | None = None
    ) -> tuple[str, ...]:
        """Return what stays: a price does not move to another version."""
        del request
        return ("version",) if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether the price may be changed: it holds for nobody yet."""
        is_open = obj is None or not is_settled(obj.version, datetime.now(UTC))
        return is_open and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        """Return whether the price may be deleted: it holds for nobody yet."""
        return (
            obj is not None
            and request.user.has_perm("billing.delete_price")
            and not is_settled(obj.version, datetime.now(UTC))
        )
