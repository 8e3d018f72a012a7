from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import F, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from billing import services
from billing.admin.account_forms import PARK, AccountForm, CycleForm, TopUpRuleForm
from billing.admin.account_list import AccountList
from billing.admin.asking import (
    MISSING,
    AsksWhy,
    Question,
    ServicePage,
    ask,
    ask_for_each,
    button,
    link_to,
    money,
    money_text,
)
from billing.admin.credits import UseCreditForm
from billing.admin.export_tables import ACCOUNTS, CONTACTS
from billing.admin.import_tables import ContactResource
from billing.admin.importing import Imports
from billing.admin.member_rows import MembershipRows, SavesMembers
from billing.admin.preview import preview_context
from billing.admin.refusals import refusals
from billing.admin.unpriced import UnpricedInWords
from billing.credits import CreditKind
from billing.facts import period_containing
from billing.models import (
    Account,
    ApiKey,
    CreditEntry,
    Subscription,
    UnpricedUsage,
)
from billing.money import Money
from billing.totals import Tax
from metering.pages import ReadOnlyRows


class SubscriptionRows(ReadOnlyRows[Subscription, Account]):
    """The account's plans, past and present."""

    model = Subscription
    hide_title = True
    own_fee = money("fee", of="account")
    own_credits = money("monthly_credits", of="account")
    fields = (
        "link",
        "interval",
        "own_fee",
        "own_credits",
        "started_at",
        "expires_at",
        "trial_ends_at",
    )
    readonly_fields = ("link", "own_fee", "own_credits")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """Return the subscriptions with their plans."""
        return super().get_queryset(request).select_related("plan", "account")

    @admin.display(description="plan")
    def link(self, subscription: Subscription) -> SafeString:
        """Return a link to the subscription."""
        return link_to(subscription, subscription.plan)


class UnpricedUsageRows(UnpricedInWords, ReadOnlyRows[UnpricedUsage, Account]):
    """Usage of the open period that no price was found for, as of the last draft."""

    model = UnpricedUsage
    hide_title = True
    fields = ("meter", "shown_quantity", "reason", "period_start", "period_end", "noted_at")
    readonly_fields = ("shown_quantity",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[UnpricedUsage]:
        """Return the rows of periods that are not closed."""
        rows = super().get_queryset(request)
        return rows.filter(billing_period_start__gte=F("account__open_period_start"))


class ApiKeyRows(ReadOnlyRows[ApiKey, Account]):
    """The account's keys, without the secrets."""

    model = ApiKey
    hide_title = True
    fields = ("name", "prefix", "created_at", "last_used_at", "revoked_at")


@admin.register(Account)
class AccountAdmin(Imports, AccountList, AsksWhy, SavesMembers, ServicePage[Account]):
    """Who pays."""

    form = AccountForm
    export_tables = (ACCOUNTS, CONTACTS)
    import_resource = ContactResource
    import_rights = ("billing.change_account",)
    readonly_fields = (
        "id",
        "opened_at",
        "open_period_start",
        "open_period_end",
        "next_time_zone",
        "next_anchor_day",
        "cycle_changes_at",
        "usage_credit",
        "prepaid_credit",
        "automatic_top_up",
        "parked_reason",
        "parked_at",
        "closing_at",
        "ends_at",
        "closed_at",
    )
    add_fieldsets = (
        (None, {"fields": (("name", "currency"), ("time_zone", "anchor_day"))}),
        ("Tax", {"fields": (("tax_rate", "tax_is_inclusive"),)}),
    )
    fieldsets = (
        (None, {"fields": (("name", "currency"), ("id", "opened_at"))}),
        ("Tax", {"fields": (("tax_rate", "tax_is_inclusive"),)}),
        ("On its invoices", {"fields": ("address", ("tax_id", "billing_email"))}),
        (
            "Periods",
            {
                "fields": (
                    ("time_zone", "anchor_day"),
                    ("next_time_zone", "next_anchor_day", "cycle_changes_at"),
                    ("open_period_start", "open_period_end"),
                )
            },
        ),
        ("Credit", {"fields": (("usage_credit", "prepaid_credit"), "automatic_top_up")}),
        ("Parked", {"fields": (("parked_reason", "parked_at"),)}),
        ("Closing", {"fields": (("closing_at", "ends_at", "closed_at"),)}),
    )
    inlines = (MembershipRows, SubscriptionRows, UnpricedUsageRows, ApiKeyRows)
    actions = ("draft_current_period", "issue_api_key", "park", "unpark")
    actions_detail = (
        "preview",
        {"title": "Change", "items": ["change_cycle", "set_top_up", "use_credit"]},
    )

    def get_readonly_fields(
        self, request: HttpRequest, obj: Account | None = None
    ) -> tuple[str, ...]:
        """Return what nobody edits: of an open account also what its periods rest on."""
        del request
        if obj is None:
            return self.readonly_fields
        return (*self.readonly_fields, "currency", "time_zone", "anchor_day")

    def get_inlines(self, request: HttpRequest, obj: Account | None) -> Any:
        """Return what hangs on an account; of one that is being opened, its users."""
        del request
        return self.inlines if obj else (MembershipRows,)

    def save_model(
        self, request: HttpRequest, obj: Account, form: forms.ModelForm[Account], change: Any
    ) -> None:
        """Open the account through the service, so that metering hears of it."""
        if change:
            super().save_model(request, obj, form, change)
            return
        said = form.cleaned_data
        opened = services.open_account(
            account_id=obj.pk,
            now=datetime.now(UTC),
            name=said["name"],
            currency=said["currency"],
            time_zone=said["time_zone"],
            anchor_day=said["anchor_day"],
            tax=Tax(said["tax_rate"], said["tax_is_inclusive"]),
        )
        # The admin goes on with the object it made: bring that up to what was saved.
        obj.__dict__.update(opened.__dict__)

    def has_draft_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them draft invoices."""
        return request.user.has_perm("billing.change_invoice")

    def has_issue_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them issue API keys."""
        return request.user.has_perm("billing.add_apikey")

    def has_park_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them park and unpark."""
        return request.user.has_perm("billing.park_account")

    @admin.display(description="usage credit")
    def usage_credit(self, account: Account) -> str:
        """Return what is left of the credit that pays usage."""
        return str(_balance(account, ~Q(grant__kind=CreditKind.PREPAID)))

    @admin.display(description="prepaid credit")
    def prepaid_credit(self, account: Account) -> str:
        """Return what is left of the credit that pays anything."""
        return str(_balance(account, Q(grant__kind=CreditKind.PREPAID)))

    @admin.display(description="automatic top-up")
    def automatic_top_up(self, account: Account) -> str:
        """Return when how much is asked for."""
        if account.top_up_threshold is None:
            return MISSING
        amount = money_text(account.top_up_amount, account.currency)
        return f"{amount} below {money_text(account.top_up_threshold, account.currency)}"

    @button("Preview the period", right="billing.view_account")
    def preview(self, request: HttpRequest, account: Account) -> HttpResponse:
        """Show what the period comes to so far."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"Current period of {account}",
            "opts": self.opts,
            "account": account,
            **preview_context(account, now=datetime.now(UTC)),
        }
        return TemplateResponse(request, "admin/billing/preview.html", context)

    @button("Zone and anchor day", right="billing.change_account")
    def change_cycle(self, request: HttpRequest, account: Account) -> HttpResponse:
        """Let another zone or anchor day bound the periods, from the next one on."""
        now = datetime.now(UTC)
        ends_at = period_containing(account, now).end
        zone = account.next_time_zone or account.time_zone
        question = Question(
            title=f"Zone and anchor day of {account}",
            text=f"They take effect at {ends_at:%Y-%m-%d %H:%M} UTC, where the current period "
            "ends. Ask for what holds now to take a change back that waits.",
            yes="Change them",
            form_class=CycleForm,
            initial={
                "time_zone": zone,
                "anchor_day": account.next_anchor_day or account.anchor_day,
            },
        )

        def change(said: Mapping[str, Any]) -> str:
            changed = services.change_cycle(
                account.pk, now=now, time_zone=said["time_zone"], anchor_day=said["anchor_day"]
            )
            if changed.cycle_changes_at is None:
                return "Zone and anchor day stay as they are."
            return f"The change takes effect at {changed.cycle_changes_at:%Y-%m-%d %H:%M} UTC."

        return ask(self, request, account, question, change)

    @button("Automatic top-up", right="billing.change_account")
    def set_top_up(self, request: HttpRequest, account: Account) -> HttpResponse:
        """Say when prepaid credit is asked for by itself."""
        question = Question(
            title=f"Automatic top-up of {account}",
            text=f"Prepaid credit is asked for, in {account.currency}, whenever little is left.",
            yes="Save",
            form_class=TopUpRuleForm,
            initial={"threshold": account.top_up_threshold, "amount": account.top_up_amount},
        )

        def change(said: Mapping[str, Any]) -> str:
            changed = services.set_automatic_top_up(
                account.pk, threshold=said["threshold"], amount=said["amount"]
            )
            return f"Automatic top-up: {self.automatic_top_up(changed)}."

        return ask(self, request, account, question, change)

    @button("Use credit by hand", right="billing.add_creditentry")
    def use_credit(self, request: HttpRequest, account: Account) -> HttpResponse:
        """Use credit for something that is on no invoice of ours."""
        question = Question(
            title=f"Use credit of {account}",
            text="For something that is on no invoice of ours. Credit that pays the current "
            "period's usage goes first, then prepaid credit.",
            yes="Use the credit",
            form_class=UseCreditForm,
        )
        return ask(self, request, account, question, partial(_use_credit, request, account))

    @admin.action(description="Draft the current period's invoice", permissions=["draft"])
    def draft_current_period(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        """Draft, or bring up to date, the invoice of the period so far."""
        now = datetime.now(UTC)
        for account in accounts:
            invoice = services.draft_current_period(account.pk, now=now)
            total = money_text(invoice.total_amount, invoice.currency)
            self.message_user(request, f"{account}: {total} so far.")

    @admin.action(description="Issue an API key", permissions=["issue"])
    def issue_api_key(
        self, request: HttpRequest, accounts: QuerySet[Account]
    ) -> TemplateResponse | None:
        """Show a new key of each account on a page of its own, this once."""
        now = datetime.now(UTC)
        issued = []
        for account in accounts:
            try:
                key = services.issue_api_key(account.pk, name=f"by {request.user}", now=now)
            except refusals() as refusal:
                messages.error(request, f"{account}: {refusal}")
            else:
                issued.append((account, key))
        if not issued:
            return None
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

    @admin.action(description="Park", permissions=["park"])
    def park(self, request: HttpRequest, accounts: QuerySet[Account]) -> HttpResponse | None:
        """Keep the sweeps from the accounts until they are unparked."""
        return ask_for_each(self, request, accounts, PARK, _park)

    @admin.action(description="Unpark", permissions=["park"])
    def unpark(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        """Let the sweeps take the accounts again."""
        for account in accounts:
            services.unpark_account(account.pk)
        self.message_user(request, "The next sweep tries again.", messages.SUCCESS)


def _park(account: Account, said: Mapping[str, Any]) -> str:
    services.park_account(account.pk, reason=said["reason"], now=datetime.now(UTC))
    return "The sweeps leave it alone."


def _balance(account: Account, kinds: Q) -> Money:
    entries = CreditEntry.objects.filter(kinds, grant__account=account)
    left: Decimal | None = entries.aggregate(left=Sum("amount"))["left"]
    return Money(left or Decimal(0), account.currency)


def _use_credit(request: HttpRequest, account: Account, said: Mapping[str, Any]) -> str:
    by = services.ByHand(
        reason=said["reason"], reference=said["reference"], user_id=request.user.pk
    )
    draws = services.use_credit(account.pk, said["amount"], by=by, now=datetime.now(UTC))
    parts = ", ".join(f"{drawn.amount} of {drawn.kind} credit" for drawn in draws)
    return f"Used: {parts}."
