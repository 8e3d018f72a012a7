"""Who belongs to which account, and who is asked to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from billing import services
from billing.admin.asking import Question, WithButtons, ask, ask_for_each, button, link_to
from billing.admin.filters import StateFilter
from billing.models import Invitation, Membership
from billing.models.members import OPEN
from metering.pages import ReadOnlyPage

RIGHT = "billing.change_invitation"
WITHDRAW = Question(
    title="Withdraw",
    text="The link in the e-mail is good for nothing from now on.",
    yes="Withdraw",
)


class InvitationStateFilter(StateFilter):
    """What became of an invitation."""

    def states(self, now: datetime) -> Mapping[str, Q]:
        """Return the states by name, as they are told apart at a moment."""
        return {
            "open": OPEN & Q(expires_at__gt=now),
            "expired": OPEN & Q(expires_at__lte=now),
            "accepted": Q(accepted_at__isnull=False),
            "withdrawn": Q(withdrawn_at__isnull=False),
        }


@admin.register(Membership)
class MembershipAdmin(ReadOnlyPage[Membership]):
    """Who may see which account, and do what. The account's own page changes it."""

    list_display = ("user", "email", "account", "role", "signs_in", "last_seen")
    list_filter = (
        ("account", AutocompleteSelectFilter),
        "role",
        ("user__is_active", admin.BooleanFieldListFilter),
    )
    list_filter_submit = True
    list_select_related = ("account", "user")
    search_fields = ("user__username", "user__email", "account__name", "account__id")
    fields = ("user", "email", "of_account", "role", "signs_in", "last_seen")
    readonly_fields = ("email", "of_account", "signs_in", "last_seen")

    @admin.display(description="e-mail", ordering="user__email")
    def email(self, member: Membership) -> str:
        """Return the address."""
        return member.user.email

    @admin.display(description="account")
    def of_account(self, member: Membership) -> SafeString:
        """Return a link to the account."""
        return link_to(member.account, member.account)

    @admin.display(description="may sign in", ordering="user__is_active", boolean=True)
    def signs_in(self, member: Membership) -> bool:
        """Return whether the user may sign in."""
        return member.user.is_active

    @admin.display(description="last signed in", ordering="user__last_login")
    def last_seen(self, member: Membership) -> datetime | None:
        """Return when the user signed in last."""
        return member.user.last_login


@admin.register(Invitation)
class InvitationAdmin(WithButtons, ReadOnlyPage[Invitation]):
    """Who is asked to become a member, and whether they did."""

    list_display = (
        "email",
        "account",
        "role",
        "state",
        "invited_at",
        "who",
        "expires_at",
        "accepted_at",
        "withdrawn_at",
    )
    list_filter = (("account", AutocompleteSelectFilter), InvitationStateFilter, "role")
    list_filter_submit = True
    list_select_related = ("account", "invited_by")
    search_fields = ("email", "account__name", "account__id", "invited_by__username")
    date_hierarchy = "invited_at"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("email", "account"),
                    ("role", "state"),
                    ("invited_at", "who"),
                    ("expires_at", "withdrawn_at"),
                    ("accepted_at", "accepted_by"),
                )
            },
        ),
    )
    readonly_fields = ("state", "who")
    actions = ("withdraw_chosen",)
    actions_detail = ("withdraw",)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them withdraw."""
        return request.user.has_perm(RIGHT)

    @admin.display(description="state")
    def state(self, invitation: Invitation) -> str:
        """Return what became of it."""
        if invitation.accepted_at:
            return "accepted"
        if invitation.withdrawn_at:
            return "withdrawn"
        return "open" if invitation.expires_at > datetime.now(UTC) else "expired"

    @admin.display(description="invited by", ordering="invited_by__username")
    def who(self, invitation: Invitation) -> str:
        """Return who asked them."""
        inviter = invitation.invited_by
        return inviter.get_username() if inviter else "a program, by a key"

    @button("Withdraw", right=RIGHT)
    def withdraw(self, request: HttpRequest, invitation: Invitation) -> HttpResponse:
        """Let it be accepted no longer."""
        return ask(self, request, invitation, WITHDRAW, partial(_withdraw, request, invitation))

    @admin.action(description="Withdraw", permissions=["withdraw"])
    def withdraw_chosen(
        self, request: HttpRequest, rows: QuerySet[Invitation]
    ) -> HttpResponse | None:
        """Let the chosen ones be accepted no longer."""
        return ask_for_each(self, request, rows, WITHDRAW, partial(_withdraw, request))


def _withdraw(request: HttpRequest, invitation: Invitation, said: Mapping[str, Any]) -> str:
    del said
    # Staff with the right may withdraw any, an owner's too.
    actor = services.Actor(Membership.Role.OWNER, request.user.pk)
    services.withdraw_invitation(
        invitation.account_id, invitation.pk, by=actor, now=datetime.now(UTC)
    )
    return f"{invitation.email} is not invited any more."
