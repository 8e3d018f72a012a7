from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse

from billing import services
from billing.admin.asking import (
    CheckedForm,
    Question,
    ServicePage,
    ask,
    ask_for_each,
    button,
    choice_field,
    decimal_field,
    integer_field,
    money,
    text_field,
    time_field,
)
from billing.admin.bulk_grants import GrantsInBulk
from billing.admin.export_tables import CREDIT_ENTRIES, CREDITS, LEDGER
from billing.admin.exporting import Exports
from billing.admin.listing import Totals, WithTotals, grouped_money
from billing.credits import RESERVED_REFERENCES, CreditKind
from billing.models import CreditEntry, CreditGrant
from metering.pages import ReadOnlyPage, ReadOnlyRows

BY_HAND = [(kind.value, kind.value) for kind in (CreditKind.PROMOTIONAL, CreditKind.PREPAID)]


class RevokeForm(forms.Form):
    """Why credit is taken back."""

    reason = text_field("Reason")


class UseCreditForm(forms.Form):
    """What credit is used for, by hand."""

    amount = decimal_field("Amount", "In the account's currency.")
    reference = text_field(
        "Reference", "Your own name for it; under it the credit is used once.", max_length=100
    )
    reason = text_field("Reason", "What it pays for.")


class CreditGrantForm(CheckedForm[CreditGrant]):
    """Credit that somebody gives."""

    kind = choice_field(
        "Kind", BY_HAND, "Promotional credit pays usage only; prepaid credit is money received."
    )
    amount = decimal_field("Amount", "In the account's currency.")
    reason = text_field("Reason", "What it is for.")
    reference = text_field(
        "Reference", "Your own name for it; under it the credit is granted once.", max_length=100
    )
    effective_at = time_field("Effective at", "In UTC. Empty: now.", required=False)
    expires_at = time_field("Expires at", "In UTC. Empty: never.", required=False)
    priority = integer_field("Priority", "The lower is used first, inside its kind.", initial=0)

    # The service finds the grant of a reference, so that saving twice grants once.
    unchecked = frozenset({"reference"})

    def clean_reference(self) -> str:
        """Return the reference. Raises ValidationError for one that the system itself uses."""
        reference: str = self.cleaned_data["reference"]
        if reference.startswith(RESERVED_REFERENCES):
            raise forms.ValidationError(
                "References of invoices, corrections and top-ups are made by themselves."
            )
        return reference

    class Meta:
        model = CreditGrant
        fields = (
            "account",
            "kind",
            "reason",
            "reference",
            "effective_at",
            "expires_at",
            "priority",
        )


class CreditEntryRows(ReadOnlyRows[CreditEntry, CreditGrant]):
    """What became of a grant."""

    model = CreditEntry
    hide_title = True
    shown_amount = money("amount", of="grant.account")
    fields = (
        "recorded_at",
        "kind",
        "shown_amount",
        "invoice",
        "reference",
        "reason",
        "recorded_by",
    )
    readonly_fields = ("shown_amount", "recorded_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditEntry]:
        """Return the entries with what they name."""
        rows = super().get_queryset(request)
        return rows.select_related("grant__account", "invoice", "recorded_by")


REVOKE = Question(
    title="Revoke credit",
    text="What is left of the credit is taken back. What was used stays used.",
    yes="Revoke",
    form_class=RevokeForm,
)


class LeftFilter(admin.SimpleListFilter):
    """Whether something is left of the credit."""

    title = "something left"
    parameter_name = "left"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the two there are."""
        del request, model_admin
        return [("yes", "Yes"), ("no", "No")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[CreditGrant]
    ) -> QuerySet[CreditGrant]:
        """Return the grants with something left, or with nothing; the list has summed it up."""
        del request
        match self.value():
            case "yes":
                return queryset.filter(Q(balance__gt=0))
            case "no":
                return queryset.filter(~Q(balance__gt=0))
        return queryset


@admin.register(CreditGrant)
class CreditGrantAdmin(Exports, GrantsInBulk, WithTotals[CreditGrant], ServicePage[CreditGrant]):
    """Credit that accounts were given, and what is left of it. Adding a row grants credit."""

    form = CreditGrantForm
    export_tables = (CREDITS, CREDIT_ENTRIES)
    granted_amount = money("granted", of="account")
    left = money("balance", of="account")
    list_display = (
        "account",
        "kind",
        "granted_amount",
        "left",
        "effective_at",
        "expires_at",
        "priority",
        "reason",
        "granted_by",
    )
    list_filter = (
        "kind",
        LeftFilter,
        "account__currency",
        ("expires_at", admin.EmptyFieldListFilter),
        ("expires_at", admin.DateFieldListFilter),
        "subscription__plan",
    )
    list_select_related = ("account", "granted_by")
    search_fields = ("account__name", "account__id", "reference", "reason")
    autocomplete_fields = ("account",)
    date_hierarchy = "effective_at"
    inlines = (CreditEntryRows,)
    actions = ("revoke_chosen",)
    actions_detail = ("revoke",)
    add_fieldsets = (
        (None, {"fields": ("account", ("kind", "amount"), ("reason", "reference"))}),
        ("When it may be used", {"fields": ("effective_at", "expires_at", "priority")}),
    )
    fieldsets = (
        (None, {"fields": (("account", "kind"), ("granted_amount", "left"))}),
        ("Why", {"fields": (("reason", "reference"), ("granted_by", "granted_at"))}),
        ("When it may be used", {"fields": (("effective_at", "expires_at"), "priority")}),
        ("With a plan", {"fields": ("subscription", ("period_start", "period_end"))}),
    )
    readonly_fields = ("granted_amount", "left", "granted_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditGrant]:
        """Return the grants with what was granted and what is left."""
        entries = CreditEntry.objects.filter(grant=OuterRef("pk")).order_by().values("grant")
        # Not by a join: the totals below would group every grant to ask which ones are shown.
        return (
            super()
            .get_queryset(request)
            .annotate(
                granted=Subquery(
                    entries.annotate(sum=Sum("amount", filter=Q(kind="grant"))).values("sum")
                ),
                balance=Subquery(entries.annotate(sum=Sum("amount")).values("sum")),
            )
        )

    def totals_of(self, rows: QuerySet[CreditGrant]) -> Totals:
        """Return what was granted and what is left, a currency and kind a row."""
        sums = (
            CreditEntry.objects.filter(grant__in=rows)
            .values("grant__account__currency", "grant__kind")
            .annotate(
                count=Count("grant", distinct=True),
                granted=Sum("amount", filter=Q(kind="grant")),
                left=Sum("amount"),
            )
            .order_by("grant__account__currency", "grant__kind")
        )
        return Totals(
            ("currency and kind", "grants", "granted", "balance"),
            [
                [
                    f"{row['grant__account__currency']}, {row['grant__kind']}",
                    f"{row['count']:,}",
                    grouped_money(row["granted"], row["grant__account__currency"]),
                    grouped_money(row["left"], row["grant__account__currency"]),
                ]
                for row in sums
            ],
            "Of all that the filters leave.",
        )

    def get_inlines(self, request: HttpRequest, obj: CreditGrant | None) -> Any:
        """Return what became of a grant, once there is one."""
        del request
        return self.inlines if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: CreditGrant | None = None) -> bool:
        """Return that nobody changes a grant: it is revoked, and another is given."""
        del request, obj
        return False

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them revoke credit."""
        return request.user.has_perm("billing.change_creditgrant")

    def save_model(
        self,
        request: HttpRequest,
        obj: CreditGrant,
        form: forms.ModelForm[CreditGrant],
        change: Any,
    ) -> None:
        """Grant the credit through the service."""
        del change
        said = form.cleaned_data
        gift = services.Gift(
            kind=CreditKind(said["kind"]),
            amount=said["amount"],
            reason=said["reason"],
            reference=said["reference"],
            effective_at=said["effective_at"],
            expires_at=said["expires_at"],
            priority=said["priority"],
        )
        granted = services.grant_credit(
            obj.account_id, gift, now=datetime.now(UTC), granted_by_id=request.user.pk
        )
        # The admin goes on with the object it made: bring that up to what was saved.
        obj.__dict__.update(granted.__dict__)

    @button("Revoke", right="billing.change_creditgrant")
    def revoke(self, request: HttpRequest, grant: CreditGrant) -> HttpResponse:
        """Take back what is left."""
        return ask(self, request, grant, REVOKE, partial(_revoke, request, grant))

    @admin.action(description="Revoke", permissions=["write"])
    def revoke_chosen(
        self, request: HttpRequest, grants: QuerySet[CreditGrant]
    ) -> HttpResponse | None:
        """Take back what is left of the chosen ones."""
        return ask_for_each(self, request, grants, REVOKE, partial(_revoke, request))


def _revoke(request: HttpRequest, grant: CreditGrant, said: Mapping[str, Any]) -> str:
    by = services.ByHand(reason=said["reason"], user_id=request.user.pk)
    services.revoke_credit(grant.pk, by=by, now=datetime.now(UTC))
    return "What was left is taken back."


@admin.register(CreditEntry)
class CreditEntryAdmin(Exports, ReadOnlyPage[CreditEntry]):
    """The credit ledger."""

    export_tables = (LEDGER,)
    own_amount = money("amount", of="grant.account")
    list_display = (
        "recorded_at",
        "account",
        "credit",
        "kind",
        "own_amount",
        "invoice",
        "reference",
        "reason",
        "recorded_by",
    )
    list_filter = ("kind", "grant__kind")
    list_select_related = ("grant__account", "invoice", "recorded_by")
    search_fields = ("grant__account__name", "invoice__number", "reference")
    date_hierarchy = "recorded_at"

    @admin.display(ordering="grant__account__name")
    def account(self, entry: CreditEntry) -> str:
        """Return whose ledger it is."""
        return entry.grant.account.name

    @admin.display(ordering="grant__kind")
    def credit(self, entry: CreditEntry) -> str:
        """Return the kind of credit."""
        return entry.grant.get_kind_display()
