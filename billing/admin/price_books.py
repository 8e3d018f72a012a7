from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.text import slugify

from billing import services
from billing.admin.asking import (
    AsksWhy,
    CheckedForm,
    Question,
    WithButtons,
    ask,
    button,
    link_to,
    searched_row_field,
    text_field,
    time_field,
)
from billing.admin.prices import PriceInWords, price_summary
from billing.admin.settled_prices import is_settled
from billing.models import Account, Price, PriceBook, PriceBookVersion
from metering.pages import Page, ReadOnlyRows


class OwnBookForm(forms.Form):
    """Whose own book a copy becomes."""

    account = searched_row_field("Account", Account.objects.all(), PriceBook.account)
    name = text_field("Name", max_length=100)
    code = text_field(
        "Code", "Letters, digits and hyphens; no other book may have it.", max_length=50
    )

    def clean_code(self) -> str:
        """Return the code. Raises ValidationError when it could not stand in an address."""
        code: str = self.cleaned_data["code"]
        if slugify(code) != code:
            raise forms.ValidationError("Use small letters, digits and hyphens, as in ada-2026.")
        return code


class NewVersionForm(forms.Form):
    """When the next version takes over."""

    effective_from = time_field("Effective from", "In UTC, and ahead.")


class VersionRows(ReadOnlyRows[PriceBookVersion, PriceBook]):
    """When which prices hold."""

    model = PriceBookVersion
    hide_title = True
    fields = ("version", "effective_to")
    readonly_fields = ("version",)

    @admin.display(description="effective from")
    def version(self, version: PriceBookVersion) -> SafeString:
        """Return a link to the version."""
        return link_to(version, f"{version.effective_from:%Y-%m-%d %H:%M}")


@admin.register(PriceBook)
class PriceBookAdmin(AsksWhy, WithButtons, Page[PriceBook]):
    """Lists of prices."""

    list_display = ("name", "code", "account", "version_count")
    list_filter = (("account", admin.EmptyFieldListFilter),)
    list_select_related = ("account",)
    search_fields = ("name", "code", "account__name")
    autocomplete_fields = ("account",)
    inlines = (VersionRows,)
    actions_detail = ("start_version", "copy_as_own")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceBook]:
        """Return the books with the number of versions of each."""
        return super().get_queryset(request).annotate(version_total=Count("versions"))

    def get_readonly_fields(
        self, request: HttpRequest, obj: PriceBook | None = None
    ) -> tuple[str, ...]:
        """Return what stays: whose book it is, since subscriptions rest on that."""
        del request
        return ("account",) if obj else ()

    @admin.display(description="versions", ordering="version_total")
    def version_count(self, book: PriceBook) -> int:
        """Return how many versions there are."""
        return int(getattr(book, "version_total", 0))

    @button("Start a new version", right="billing.add_pricebookversion")
    def start_version(self, request: HttpRequest, book: PriceBook) -> HttpResponse:
        """Let a copy of the last version take over at a moment ahead."""
        now = datetime.now(UTC)
        question = Question(
            title=f"New version of {book}",
            text="The prices in force end at this moment and a copy of them begins. Until then "
            "the copy's prices can be changed.",
            yes="Start the version",
            form_class=NewVersionForm,
        )

        def start(said: Any) -> str:
            version = services.start_version(
                book.pk, effective_from=said["effective_from"], now=now
            )
            return f"Version {version.effective_from:%Y-%m-%d %H:%M} begins. Change its prices now."

        return ask(self, request, book, question, start)

    @button("Copy as own book of an account", right="billing.add_pricebook")
    def copy_as_own(self, request: HttpRequest, book: PriceBook) -> HttpResponse:
        """Make a book for one account out of the prices in force."""
        now = datetime.now(UTC)
        question = Question(
            title=f"Copy {book}",
            text="The prices in force are copied into a new book of the account. Change them "
            "there, then put the account on a plan with that book.",
            yes="Copy the book",
            form_class=OwnBookForm,
        )

        def copy(said: Any) -> str:
            own = services.copy_book(
                book.pk,
                account_id=said["account"].pk,
                code=said["code"],
                name=said["name"],
                now=now,
            )
            return f"{own} is the own book of {said['account']}."

        return ask(self, request, book, question, copy)


class PriceRows(PriceInWords, ReadOnlyRows[Price, PriceBookVersion]):
    """A version's prices. Each has a page of its own, where it is edited."""

    model = Price
    hide_title = True
    fields = ("meter", "link", "tiers_in_words")
    readonly_fields = ("link", "tiers_in_words")

    @admin.display(description="price")
    def link(self, price: Price) -> SafeString:
        """Return a link to the price."""
        return link_to(price, price_summary(price))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        """Return the prices with their tiers."""
        return super().get_queryset(request).prefetch_related("tiers")


class PriceBookVersionForm(CheckedForm[PriceBookVersion]):
    """When a version's prices hold."""

    also_checked = frozenset({"book", "effective_from"})

    def clean_effective_from(self) -> datetime:
        """Return the start. Raises ValidationError where it would give the past other prices."""
        effective_from: datetime = self.cleaned_data["effective_from"]
        book, now = self.cleaned_data.get("book"), datetime.now(UTC)
        if book and is_settled(PriceBookVersion(book=book, effective_from=effective_from), now):
            raise forms.ValidationError(
                "The book is in use, and this time is over. Use a time ahead, or Start a new "
                "version on the book's page, which brings its prices along."
            )
        return effective_from

    def clean_effective_to(self) -> datetime | None:
        """Return the end. Raises ValidationError when it would change what held already."""
        effective_to: datetime | None = self.cleaned_data["effective_to"]
        before, now = self.instance.effective_to, datetime.now(UTC)
        # Whether the prices hold for somebody is seen from what of the version may be edited.
        if "effective_from" in self.fields or effective_to == before:
            return effective_to
        if (before and before <= now) or (effective_to and effective_to <= now):
            raise forms.ValidationError(f"What held stays. Use a time after {now:%Y-%m-%d %H:%M}.")
        return effective_to


@admin.register(PriceBookVersion)
class PriceBookVersionAdmin(AsksWhy, WithButtons, Page[PriceBookVersion]):
    """The prices in force from one moment up to another."""

    form = PriceBookVersionForm
    list_display = ("book", "effective_from", "effective_to", "price_count")
    list_filter = ("book",)
    list_select_related = ("book",)
    search_fields = ("book__name",)
    date_hierarchy = "effective_from"
    fieldsets = ((None, {"fields": ("book", "effective_from", "effective_to")}),)
    inlines = (PriceRows,)
    actions_detail = ("add_price",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceBookVersion]:
        """Return the versions with the number of prices of each."""
        return super().get_queryset(request).annotate(price_total=Count("prices"))

    def get_readonly_fields(
        self, request: HttpRequest, obj: PriceBookVersion | None = None
    ) -> tuple[str, ...]:
        """Return what nobody edits: where a version in force belongs, and since when."""
        del request
        if obj and is_settled(obj, datetime.now(UTC)):
            return ("book", "effective_from")
        return ()

    @admin.display(description="prices", ordering="price_total")
    def price_count(self, version: PriceBookVersion) -> int:
        """Return how many prices there are."""
        return int(getattr(version, "price_total", 0))

    @button("Add a price", right="billing.add_price")
    def add_price(self, request: HttpRequest, version: PriceBookVersion) -> HttpResponse:
        """Go to the page of a new price of this version."""
        del request
        return HttpResponseRedirect(reverse("admin:billing_price_add") + f"?version={version.pk}")
