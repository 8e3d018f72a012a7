from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from billing import services
from billing.admin.asking import (
    CheckedForm,
    Question,
    ServicePage,
    ask,
    ask_for_each,
    button,
    money,
    money_text,
)
from billing.models import TopUp


class TopUpForm(CheckedForm[TopUp]):
    """Prepaid credit to be asked for."""

    class Meta:
        model = TopUp
        fields = ("account", "amount")


MONEY_IS_HERE = Question(
    title="The money is here",
    text="The account gets the amount as prepaid credit. Say so once the money has arrived.",
    yes="Grant the credit",
)
GIVE_UP = Question(
    title="Give up",
    text="The money is asked for no longer.",
    yes="Give up",
)


@admin.register(TopUp)
class TopUpAdmin(ServicePage[TopUp]):
    """Prepaid credit that was asked for, and whether its money is here."""

    form = TopUpForm
    own_amount = money("amount", of="account")
    list_display = (
        "account",
        "own_amount",
        "state",
        "is_automatic",
        "requested_at",
        "given_up_at",
        "grant",
    )
    list_filter = (
        ("grant", admin.EmptyFieldListFilter),
        ("given_up_at", admin.EmptyFieldListFilter),
        "is_automatic",
    )
    list_select_related = ("account", "grant__account")
    search_fields = ("account__name", "account__id")
    autocomplete_fields = ("account",)
    date_hierarchy = "requested_at"
    actions = ("grant_chosen", "give_up_chosen")
    actions_detail = ("money_is_here", "give_up")
    add_fieldsets = ((None, {"fields": (("account", "amount"),)}),)
    fieldsets = (
        (None, {"fields": (("account", "own_amount"), ("state", "is_automatic"))}),
        ("Times", {"fields": (("requested_at", "given_up_at"), "grant")}),
    )
    readonly_fields = ("state", "own_amount")

    def has_change_permission(self, request: HttpRequest, obj: TopUp | None = None) -> bool:
        """Return that nobody changes a top-up: it is granted or given up."""
        del request, obj
        return False

    def has_write_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them grant and give up."""
        return request.user.has_perm("billing.change_topup")

    def save_model(
        self, request: HttpRequest, obj: TopUp, form: forms.ModelForm[TopUp], change: Any
    ) -> None:
        """Ask for the money through the service."""
        del request, form, change
        asked = services.request_top_up(obj.account_id, obj.amount, now=datetime.now(UTC))
        obj.__dict__.update(asked.__dict__)

    @admin.display(description="state")
    def state(self, top_up: TopUp) -> str:
        """Return whether the money is here, waited for, or given up."""
        if top_up.grant_id is not None:
            return "paid"
        return "given up" if top_up.given_up_at else "waits for its money"

    @button("The money is here", right="billing.change_topup")
    def money_is_here(self, request: HttpRequest, top_up: TopUp) -> HttpResponse:
        """Grant the credit."""
        return ask(self, request, top_up, MONEY_IS_HERE, partial(_grant, top_up))

    @button("Give up", right="billing.change_topup")
    def give_up(self, request: HttpRequest, top_up: TopUp) -> HttpResponse:
        """Ask for it no longer."""
        return ask(self, request, top_up, GIVE_UP, partial(_give_up, top_up))

    @admin.action(description="The money is here", permissions=["write"])
    def grant_chosen(self, request: HttpRequest, rows: QuerySet[TopUp]) -> HttpResponse | None:
        """Grant the credit of the chosen ones."""
        return ask_for_each(self, request, rows, MONEY_IS_HERE, _grant)

    @admin.action(description="Give up", permissions=["write"])
    def give_up_chosen(self, request: HttpRequest, rows: QuerySet[TopUp]) -> HttpResponse | None:
        """Ask for the chosen ones no longer."""
        return ask_for_each(self, request, rows, GIVE_UP, _give_up)


def _grant(top_up: TopUp, said: Mapping[str, Any]) -> str:
    del said
    services.grant_top_up(top_up.pk, now=datetime.now(UTC))
    return f"{money_text(top_up.amount, top_up.account.currency)} of prepaid credit are granted."


def _give_up(top_up: TopUp, said: Mapping[str, Any]) -> str:
    del said
    services.give_up_top_up(top_up.pk, now=datetime.now(UTC))
    top_up.refresh_from_db(fields=["grant", "given_up_at"])
    return "It was paid already, and stays." if top_up.grant_id else "It is given up."
