from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget  # type: ignore[import-untyped]

from billing import services
from billing.models import Account, ApiKey, Membership, Subscription
from metering.pages import ModelForm, Page, ReadOnlyPage, ReadOnlyRows, TabularInline


class AccountForm(ModelForm[Account]):
    """What a person says of an account; the rest follows from it."""

    class Meta:
        model = Account
        fields = ("name", "currency", "time_zone", "tax_rate")
        widgets = {
            "currency": UnfoldAdminTextInputWidget,
            "time_zone": UnfoldAdminTextInputWidget,
        }

    def clean_currency(self) -> str:
        """Return the code in capitals; the table refuses anything that is no code."""
        currency: str = self.cleaned_data["currency"].upper()
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise forms.ValidationError("Three letters, as in USD.")
        return currency

    def clean_time_zone(self) -> str:
        """Return the zone's name. Raises ValidationError when it is not an IANA one."""
        time_zone: str = self.cleaned_data["time_zone"]
        if not services.is_time_zone(time_zone):
            raise forms.ValidationError("Not an IANA time zone, as in Europe/Berlin.")
        return time_zone


class MembershipRows(TabularInline[Membership, Account]):
    """The account's users."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


class SubscriptionRows(ReadOnlyRows[Subscription, Account]):
    """The account's plans, past and present."""

    model = Subscription
    fields = ("plan", "monthly_fee", "monthly_credits", "started_at", "ended_at")


class ApiKeyRows(ReadOnlyRows[ApiKey, Account]):
    """The account's keys, without the secrets."""

    model = ApiKey
    fields = ("name", "prefix", "created_at", "last_used_at", "revoked_at")


@admin.register(Account)
class AccountAdmin(Page[Account]):
    """Who pays."""

    form = AccountForm
    list_display = ("name", "id", "currency", "time_zone", "open_period_end", "parked_reason")
    list_filter = (("parked_at", admin.EmptyFieldListFilter), "currency")
    search_fields = ("name", "id", "memberships__user__email", "memberships__user__username")
    readonly_fields = (
        "id",
        "opened_at",
        "open_period_start",
        "open_period_end",
        "parked_reason",
        "parked_at",
    )
    inlines = (MembershipRows, SubscriptionRows, ApiKeyRows)
    actions = ("draft_current_month", "issue_api_key", "unpark")

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        """Return the form's fields, with what the services keep once the account is open."""
        del request
        return (*AccountForm.Meta.fields, *(self.readonly_fields if obj else ()))

    def get_readonly_fields(
        self, request: HttpRequest, obj: Account | None = None
    ) -> tuple[str, ...]:
        """Return what nobody edits: of an open account also what its periods rest on."""
        del request
        return (*self.readonly_fields, "currency", "time_zone") if obj else self.readonly_fields

    def save_model(
        self, request: HttpRequest, obj: Account, form: ModelForm[Account], change: Any
    ) -> None:
        """Open the account through the service, so that metering hears of it."""
        if change:
            super().save_model(request, obj, form, change)
            return
        opened = services.open_account(
            account_id=obj.pk, now=datetime.now(UTC), **form.cleaned_data
        )
        # The admin goes on with the object it made: bring that up to what was saved.
        obj.__dict__.update(opened.__dict__)

    @admin.action(description="Draft the current month's invoice", permissions=["change"])
    def draft_current_month(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        """Draft, or bring up to date, the invoice of the month so far."""
        now = datetime.now(UTC)
        for account in accounts:
            invoice = services.draft_current_month(account.pk, now=now)
            self.message_user(
                request,
                f"{account}: {invoice.total_amount.normalize():f} {invoice.currency} so far.",
            )

    @admin.action(description="Issue an API key", permissions=["change"])
    def issue_api_key(self, request: HttpRequest, accounts: QuerySet[Account]) -> TemplateResponse:
        """Show a new key of each account on a page of its own, this once."""
        now = datetime.now(UTC)
        issued = [
            (account, services.issue_api_key(account.pk, name=f"by {request.user}", now=now))
            for account in accounts
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": "New API keys",
            "issued": [(account.name, key.key) for account, key in issued],
        }
        # Not a message: those travel in a cookie, and this page must not be kept either.
        return TemplateResponse(
            request,
            "admin/billing/api_keys_issued.html",
            context,
            headers={"Cache-Control": "no-store"},
        )

    @admin.action(description="Unpark", permissions=["change"])
    def unpark(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        """Let the sweeps take the accounts again."""
        for account in accounts:
            services.unpark_account(account.pk)
        self.message_user(request, "The next sweep tries again.", messages.SUCCESS)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyPage[ApiKey]):
    """Customers' keys. They are issued from the account's list."""

    list_display = ("name", "prefix", "account", "created_at", "last_used_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    list_select_related = ("account",)
    search_fields = ("name", "prefix", "account__name")
    exclude = ("key_hash",)
    actions = ("revoke",)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, api_keys: QuerySet[ApiKey]) -> None:
        """Refuse the keys from now on."""
        now = datetime.now(UTC)
        for api_key in api_keys:
            services.revoke_api_key(api_key.pk, now=now)
        self.message_user(request, "Revoked.", messages.SUCCESS)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them change keys."""
        return request.user.has_perm("billing.change_apikey")
