from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from billing import services
from billing.models import Plan, Price, PriceBook, PriceBookVersion, Subscription
from metering.pages import ModelForm, Page, TabularInline


@admin.register(Plan)
class PlanAdmin(Page[Plan]):
    """What is on offer."""

    list_display = ("name", "code", "monthly_fee", "monthly_credits", "currency", "price_book")
    list_filter = ("price_book", "currency")
    list_select_related = ("price_book",)
    search_fields = ("name", "code")


class PriceBookVersionRows(TabularInline[PriceBookVersion, PriceBook]):
    """When which prices hold."""

    model = PriceBookVersion
    extra = 0
    can_delete = False
    show_change_link = True


@admin.register(PriceBook)
class PriceBookAdmin(Page[PriceBook]):
    """Lists of prices."""

    list_display = ("name", "code")
    search_fields = ("name", "code")
    inlines = (PriceBookVersionRows,)


class PriceRows(TabularInline[Price, PriceBookVersion]):
    """A version's prices. Once in force they stay: a change of price is a new version."""

    model = Price
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: PriceBookVersion | None = None) -> bool:
        """Return whether prices may be added to this version."""
        return _is_ahead(obj) and super().has_add_permission(request, obj)

    def has_change_permission(
        self, request: HttpRequest, obj: PriceBookVersion | None = None
    ) -> bool:
        """Return whether this version's prices may be changed."""
        return _is_ahead(obj) and super().has_change_permission(request, obj)

    def has_delete_permission(
        self, request: HttpRequest, obj: PriceBookVersion | None = None
    ) -> bool:
        """Return whether prices may be taken out of this version."""
        return _is_ahead(obj) and super().has_delete_permission(request, obj)


def _is_ahead(version: PriceBookVersion | None) -> bool:
    return version is None or version.effective_from > datetime.now(UTC)


@admin.register(PriceBookVersion)
class PriceBookVersionAdmin(Page[PriceBookVersion]):
    """The prices in force from one moment up to another."""

    list_display = ("book", "effective_from", "effective_to")
    list_filter = ("book",)
    list_select_related = ("book",)
    search_fields = ("book__name",)
    date_hierarchy = "effective_from"
    inlines = (PriceRows,)

    def get_readonly_fields(
        self, request: HttpRequest, obj: PriceBookVersion | None = None
    ) -> tuple[str, ...]:
        """Return what nobody edits: where a version in force belongs, and since when."""
        del request
        return () if _is_ahead(obj) else ("book", "effective_from")


class SubscriptionForm(ModelForm[Subscription]):
    """An account and the plan it is put on from now on."""

    class Meta:
        model = Subscription
        fields = ("account", "plan", "monthly_fee")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if "monthly_fee" in self.fields:
            self.fields["monthly_fee"].required = False
            self.fields["monthly_fee"].help_text = "Empty: the plan's own."


@admin.register(Subscription)
class SubscriptionAdmin(Page[Subscription]):
    """Who is on which plan. Adding one puts the account on it now, in place of the old."""

    form = SubscriptionForm
    list_display = (
        "account",
        "plan",
        "monthly_fee",
        "monthly_credits",
        "started_at",
        "ended_at",
    )
    list_filter = ("plan", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("account", "plan")
    search_fields = ("account__name", "account__id")
    autocomplete_fields = ("account",)
    date_hierarchy = "started_at"

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> tuple[str, ...]:
        """Return the form's fields, and all columns of a row that exists."""
        del request
        return self.list_display if obj else SubscriptionForm.Meta.fields

    def has_change_permission(self, request: HttpRequest, obj: Subscription | None = None) -> bool:
        """Return that nobody changes a subscription: another takes its place."""
        del request, obj
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the form again, with the reason, when the service refuses."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except services.SubscriptionRefusedError as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def save_model(
        self,
        request: HttpRequest,
        obj: Subscription,
        form: ModelForm[Subscription],
        change: Any,
    ) -> None:
        """Subscribe through the service."""
        del request, form, change
        subscribed = services.subscribe(
            obj.account_id,
            plan_code=obj.plan.code,
            now=datetime.now(UTC),
            monthly_fee=obj.monthly_fee,
        )
        # The admin goes on with the object it made: bring that up to what was saved.
        obj.__dict__.update(subscribed.__dict__)
