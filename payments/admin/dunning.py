"""The dunning board: who owes what, since when, why, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from billing.admin.asking import MISSING, WithButtons, button, link_to
from billing.admin.invoices import RIGHT
from billing.admin.listing import Totals, WithTotals, grouped_money
from metering.pages import ReadOnlyPage
from payments.admin.customers import expiry_text
from payments.admin.filters import OpenFilter
from payments.admin.paying import ask_for_retry, ask_to_write_off, ask_what_came
from payments.admin.payments import RECORD_RIGHT
from payments.dunning_board import (
    AGES,
    Debt,
    accounts_by_standing,
    debts,
    sums_by_currency,
    with_owed,
)
from payments.models import Customer, DunningCase, DunningStep

_ACTIONS = {
    DunningStep.Action.RETRY: "charge the card",
    DunningStep.Action.SUSPEND: "ask the platform to stop its sandboxes",
    DunningStep.Action.WRITE_OFF: "write it off",
}


class OpenCases(OpenFilter):
    """Whether the invoice is still to be paid; those that are, unless asked for others."""


class AgeFilter(admin.SimpleListFilter):
    """How long ago the first payment failed."""

    title = "since the first failure"
    parameter_name = "age"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the ages, as the totals have them."""
        del request, model_admin
        return [(age.name, age.label) for age in AGES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the cases of the age."""
        del request
        chosen = [age for age in AGES if age.name == self.value()]
        return queryset.filter(chosen[0].holds(datetime.now(UTC))) if chosen else queryset


@admin.register(DunningCase)
class DunningBoard(WithTotals[DunningCase], WithButtons, ReadOnlyPage[DunningCase]):
    """Invoices whose payment failed, a row each: the one that is next to be acted on first."""

    list_display = (
        "account",
        "invoice_page",
        "owed",
        "days",
        "last_failure",
        "next_step",
        "card",
        "standing",
    )
    list_display_links = None
    list_filter = (
        OpenCases,
        ("invoice__account__customer__standing", admin.ChoicesFieldListFilter),
        AgeFilter,
        "invoice__currency",
        "ending",
    )
    list_select_related = ("invoice__account",)
    search_fields = ("invoice__number", "invoice__account__name", "invoice__account__id")
    actions_row = ("retry_now", "record_payment", "write_off")
    actions_detail = ("retry_now", "record_payment", "write_off")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "standing"),
                    ("invoice_page", "owed"),
                    ("days", "last_failure"),
                    ("next_step", "card"),
                    ("opened_at", "suspended_at"),
                    ("closed_at", "ending"),
                )
            },
        ),
    )
    readonly_fields = (
        "account",
        "invoice_page",
        "owed",
        "days",
        "last_failure",
        "next_step",
        "card",
        "standing",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[DunningCase]:
        """Return the cases with what is owed, by which the list can be ordered."""
        return with_owed(super().get_queryset(request)).select_related("invoice__account")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the board, with what its rows show read at once."""
        titled = {**(extra_context or {}), "title": "Dunning board"}
        response = super().changelist_view(request, titled)
        if changes := (getattr(response, "context_data", None) or {}).get("cl"):
            _read(changes.result_list)
        return response

    def totals_of(self, rows: QuerySet[DunningCase]) -> Totals:
        """Return what is owed by currency and by age, and how many accounts stand how."""
        sums = sums_by_currency(rows, now=datetime.now(UTC))
        standings = accounts_by_standing()
        past_due, suspended = (
            standings[standing]
            for standing in (Customer.Standing.PAST_DUE, Customer.Standing.SUSPENDED)
        )
        return Totals(
            ("currency", "cases", "owed", *(age.label for age in AGES)),
            [
                [
                    currency,
                    f"{of.cases:,}",
                    grouped_money(of.owed.amount, currency),
                    *(grouped_money(part.amount, currency) for part in of.by_age),
                ]
                for currency, of in sums.items()
            ],
            f"By days since the first failure. Past due: {past_due:,} accounts; suspended: "
            f"{suspended:,}.",
        )

    @admin.display(ordering="invoice__account__name")
    def account(self, case: DunningCase) -> SafeString:
        """Return a link to who owes it."""
        return link_to(case.invoice.account, case.invoice.account)

    @admin.display(description="invoice", ordering="invoice__number")
    def invoice_page(self, case: DunningCase) -> SafeString:
        """Return a link to what is owed."""
        return link_to(case.invoice, case.invoice)

    @admin.display(ordering="owed")
    def owed(self, case: DunningCase) -> str:
        """Return what is still to be paid."""
        return grouped_money(_debt(case).owed.amount, case.invoice.currency)

    @admin.display(description="days", ordering="-opened_at")
    def days(self, case: DunningCase) -> int:
        """Return the whole days since the first failure."""
        return _debt(case).days

    @admin.display(description="last failure")
    def last_failure(self, case: DunningCase) -> str:
        """Return why the last try failed."""
        return _debt(case).last_failure or MISSING

    @admin.display(description="next step", ordering="next_at")
    def next_step(self, case: DunningCase) -> str:
        """Return what is done next and when, UTC."""
        step = _debt(case).next_step
        if step is None or case.next_at is None:
            return MISSING
        return f"{case.next_at:%Y-%m-%d %H:%M}, {_ACTIONS[DunningStep.Action(step.action)]}"

    @admin.display(description="card on file")
    def card(self, case: DunningCase) -> str:
        """Return what is charged by default, and whether it has expired."""
        card = _debt(case).card
        return f"{card}, {expiry_text(card, today=datetime.now(UTC).date())}" if card else "none"

    @admin.display(description="account is", ordering="invoice__account__customer__standing")
    def standing(self, case: DunningCase) -> str:
        """Return how the account stands."""
        return str(Customer.Standing(_debt(case).standing).label).lower()

    @button("Retry now", right=RIGHT)
    def retry_now(self, request: HttpRequest, case: DunningCase) -> HttpResponse:
        """Have its payment tried once more."""
        return ask_for_retry(self, request, case.invoice, case, back=_board())

    @button("Record a payment", right=RECORD_RIGHT)
    def record_payment(self, request: HttpRequest, case: DunningCase) -> HttpResponse:
        """Write down money that came another way for its invoice."""
        return ask_what_came(self, request, case.invoice, case, back=_board())

    @button("Write off", right="billing.write_off_invoice")
    def write_off(self, request: HttpRequest, case: DunningCase) -> HttpResponse:
        """Give up collecting it."""
        return ask_to_write_off(self, request, case.invoice, case, back=_board())


def _board() -> str:
    return reverse("admin:payments_dunningcase_changelist")


def _read(cases: Iterable[DunningCase]) -> None:
    """Read what the rows of a page show, all at once, and leave it at each."""
    found = debts(cases, now=datetime.now(UTC))
    for case in cases:
        case.__dict__["debt"] = found[case.pk]


def _debt(case: DunningCase) -> Debt:
    if "debt" not in case.__dict__:
        _read([case])
    debt: Debt = case.__dict__["debt"]
    return debt
