from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import services
from billing.admin.asking import (
    CheckedForm,
    Question,
    WithButtons,
    ask,
    ask_for_each,
    button,
    money,
    money_text,
)
from billing.models import Budget, MailMessage
from billing.models.messages import MOST_PERCENT, state_at
from billing.services.budgets import state_of
from metering.pages import Page, ReadOnlyPage

RIGHT = "billing.change_invoice"
SEND_AGAIN = Question(
    title="Send again",
    text="The next sweep sends it, to the address that it names. One that is unsure may be there "
    "already.",
    yes="Send again",
)


class StateFilter(admin.SimpleListFilter):
    """What became of a message."""

    title = "state"
    parameter_name = "state"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> list[tuple[str, str]]:
        """Return the states."""
        del request, model_admin
        return [(value, str(label)) for value, label in MailMessage.State.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages in the chosen state."""
        del request
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(MailMessage)
class MailMessageAdmin(WithButtons, ReadOnlyPage[MailMessage]):
    """E-mails: to whom, about what, and what became of them."""

    list_display = (
        "subject",
        "account",
        "kind",
        "to",
        "shown_state",
        "created_at",
        "sent_at",
        "attempts",
        "last_error",
    )
    list_filter = (StateFilter, "kind")
    list_select_related = ("account",)
    search_fields = ("subject", "recipient", "subject_key", "account__name", "account__id")
    date_hierarchy = "created_at"
    actions = ("send_chosen_again",)
    actions_detail = ("send_again",)
    fieldsets = (
        (None, {"fields": (("account", "kind"), ("to", "shown_state"), "subject", "shown_text")}),
        (
            "Sending",
            {
                "fields": (
                    ("attempts", "last_error"),
                    ("created_at", "try_at"),
                    ("handed_over_at", "sent_at"),
                    ("given_up_at", "subject_key"),
                )
            },
        ),
    )
    readonly_fields = ("to", "shown_state", "shown_text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[MailMessage]:
        """Return the messages with their state as of now, without the long HTML."""
        rows = super().get_queryset(request).defer("html")
        return rows.annotate(state=state_at(datetime.now(UTC)))

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them send again."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="to", ordering="recipient")
    def to(self, message: MailMessage) -> str:
        """Return the address, or that there was none."""
        return message.recipient or "nobody: the account has no address"

    @admin.display(description="state", ordering="state")
    def shown_state(self, message: Any) -> str:
        """Return what became of it."""
        return str(MailMessage.State(message.state).label)

    @admin.display(description="text")
    def shown_text(self, message: MailMessage) -> SafeString:
        """Return the plain body with its lines."""
        lines = ((line,) for line in message.text.splitlines() if line)
        return format_html_join("", "<div>{}</div>", lines)

    @button("Send again", right=RIGHT)
    def send_again(self, request: HttpRequest, message: MailMessage) -> HttpResponse:
        """Let it be sent once more."""
        return ask(self, request, message, SEND_AGAIN, partial(_send_again, message))

    @admin.action(description="Send again", permissions=["write"])
    def send_chosen_again(
        self, request: HttpRequest, rows: QuerySet[MailMessage]
    ) -> HttpResponse | None:
        """Let the chosen ones be sent once more."""
        return ask_for_each(self, request, rows, SEND_AGAIN, _send_again)


def _send_again(message: MailMessage, said: Mapping[str, Any]) -> str:
    del said
    sent = services.send_again(message.pk, now=datetime.now(UTC))
    return f"It is sent to {sent.recipient} within a minute."


class BudgetForm(CheckedForm[Budget]):
    """What an account means to spend in a billing period."""

    class Meta:
        model = Budget
        fields = (
            "account",
            "name",
            "amount",
            "thresholds",
            "alert_amounts",
            "hard_cap",
            "is_active",
        )
        widgets = {
            "thresholds": UnfoldAdminTextInputWidget,
            "alert_amounts": UnfoldAdminTextInputWidget,
        }
        help_texts = {
            "amount": "In the account's currency, for one billing period, fees and tax included.",
            "thresholds": "Percentages of the amount, by comma. Each is told once a period.",
            "alert_amounts": "Amounts in the account's currency, by comma, that are told of too.",
            "hard_cap": "When all of it is reached, the platform is asked to stop the account's "
            "sandboxes. Switched off, or with an amount above the cost, it is lifted.",
        }

    def clean_thresholds(self) -> list[int]:
        """Return the percentages in order, each once."""
        thresholds: list[int] = self.cleaned_data["thresholds"]
        if any(not 0 < threshold <= MOST_PERCENT for threshold in thresholds):
            raise forms.ValidationError(f"Use percentages from 1 to {MOST_PERCENT}.")
        return sorted(set(thresholds))

    def clean_alert_amounts(self) -> list[Decimal]:
        """Return the amounts in order, each once."""
        amounts: list[Decimal] = self.cleaned_data["alert_amounts"]
        if any(amount <= 0 for amount in amounts):
            raise forms.ValidationError("Use amounts above 0.")
        return sorted(set(amounts))


@admin.register(Budget)
class BudgetAdmin(Page[Budget]):
    """What accounts mean to spend, when they are told, and whether it is a hard cap."""

    form = BudgetForm
    own_amount = money("amount", of="account")
    list_display = (
        "name",
        "account",
        "own_amount",
        "used",
        "shown_thresholds",
        "hard_cap",
        "is_active",
        "looked_at",
    )
    list_filter = ("is_active", "hard_cap")
    list_select_related = ("account", "state")
    search_fields = ("name", "account__name", "account__id")
    autocomplete_fields = ("account",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "name"),
                    ("amount", "thresholds"),
                    "alert_amounts",
                    ("hard_cap", "is_active"),
                )
            },
        ),
    )

    @admin.display(description="told at")
    def shown_thresholds(self, budget: Budget) -> str:
        """Return the percentages, then the amounts."""
        parts = [f"{threshold} %" for threshold in sorted(budget.thresholds)]
        currency = budget.account.currency
        return ", ".join(parts + [money_text(amount, currency) for amount in budget.alert_amounts])

    @admin.display(description="cost at the last look")
    def used(self, budget: Budget) -> str:
        """Return what the period had cost when it was last looked at."""
        state = state_of(budget)
        return money_text(state.cost if state else None, budget.account.currency)
