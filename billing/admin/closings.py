"""Accounts that are being closed: who asked, how far it is, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.contrib import admin
from django.db.models import Q
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing.admin.asking import MISSING
from billing.admin.filters import StateFilter
from billing.models import AccountClosing
from metering.pages import ReadOnlyPage

_STOPPING = "sandboxes stop"
_SETTLING = "settling"
_CLOSED = "closed"


class ClosingStateFilter(StateFilter):
    """How far a closing is."""

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name, in their order."""
        del now
        return {
            _STOPPING: Q(account__ends_at__isnull=True),
            _SETTLING: Q(account__ends_at__isnull=False, account__closed_at__isnull=True),
            _CLOSED: Q(account__closed_at__isnull=False),
        }


@admin.register(AccountClosing)
class AccountClosingAdmin(ReadOnlyPage[AccountClosing]):
    """Accounts that are being closed, or are. A sweep takes them on, a step at a time."""

    list_display = (
        "account",
        "state",
        "shown_waiting",
        "asked_at",
        "who",
        "reason",
        "ends_at",
        "closed_at",
        "tried_at",
    )
    list_filter = (("account", AutocompleteSelectFilter), ClosingStateFilter)
    list_filter_submit = True
    list_select_related = ("account", "asked_by")
    search_fields = ("account__name", "account__id", "asked_by__username", "reason")
    date_hierarchy = "asked_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("account", "state"),
                    ("asked_at", "who"),
                    "reason",
                    ("ends_at", "closed_at"),
                    ("shown_waiting", "tried_at"),
                )
            },
        ),
    )
    readonly_fields = ("state", "who", "shown_waiting", "ends_at", "closed_at")

    @admin.display(description="state")
    def state(self, closing: AccountClosing) -> str:
        """Return how far it is."""
        if closing.account.closed_at:
            return _CLOSED
        return _SETTLING if closing.account.ends_at else _STOPPING

    @admin.display(description="waits for", ordering="waiting_for")
    def shown_waiting(self, closing: AccountClosing) -> str:
        """Return what is in the way."""
        return closing.waiting_for or MISSING

    @admin.display(description="asked by", ordering="asked_by__username")
    def who(self, closing: AccountClosing) -> str:
        """Return who asked for it."""
        return closing.asked_by.get_username() if closing.asked_by else "a program, by a key"

    @admin.display(description="last period ends", ordering="account__ends_at")
    def ends_at(self, closing: AccountClosing) -> datetime | None:
        """Return where its last period ends."""
        return closing.account.ends_at

    @admin.display(description="closed at", ordering="account__closed_at")
    def closed_at(self, closing: AccountClosing) -> datetime | None:
        """Return when all was settled."""
        return closing.account.closed_at
