"""Who calls the API for which account, and what they may do there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import F
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from structlog.contextvars import bind_contextvars

from billing.models import ApiKey, Membership
from billing.services.closing import READABLE_FOR

Scope = ApiKey.Scope

CHOSEN_ACCOUNT = "account"
"""Where a session keeps which of a member's accounts is looked at, as text."""

SCOPES_OF_ROLE: Mapping[str, frozenset[str]] = {
    Membership.Role.VIEWER: frozenset({Scope.READ}),
    Membership.Role.BILLING: frozenset({Scope.READ, Scope.WRITE}),
    Membership.Role.OWNER: frozenset(Scope.values),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A valid key of an account, or a member of it who is signed in. What a request's `auth` is."""

    account_id: UUID
    scopes: frozenset[str]
    key: ApiKey | None = None
    role: str = ""
    user: User | None = None

    def may(self, scope: str) -> bool:
        """Return whether the caller has the scope."""
        return scope in self.scopes


def caller_of(request: Request) -> Caller:
    """Return who calls. Raises NotAuthenticated."""
    if not isinstance(request.auth, Caller):
        raise NotAuthenticated
    return request.auth


def key_caller(key: ApiKey) -> Caller:
    """Return the holder of a valid key. What is logged says so from now on."""
    bind_contextvars(account_id=str(key.account_id))
    return Caller(account_id=key.account_id, scopes=frozenset(key.scopes), key=key)


def member_caller(membership: Membership, user: User) -> Caller:
    """Return a member who is signed in. What is closed is read only. What is logged says so."""
    bind_contextvars(account_id=str(membership.account_id), user_id=user.pk)
    scopes = SCOPES_OF_ROLE[membership.role]
    return Caller(
        account_id=membership.account_id,
        scopes=scopes & {Scope.READ} if membership.account.closed_at else scopes,
        role=membership.role,
        user=user,
    )


def membership_of(user: User, session: SessionBase) -> Membership | None:
    """Return the membership in the account that the session chose, else in the user's first one.

    Open accounts come first, by name, then closed ones, the last closed before the others. One
    that was closed too long ago is not among them.
    """
    memberships = list(
        Membership.objects.filter(user=user)
        .exclude(account__closed_at__lte=datetime.now(UTC) - READABLE_FOR)
        .select_related("account")
        .order_by(F("account__closed_at").desc(nulls_first=True), "account__name", "pk")
    )
    chosen = session.get(CHOSEN_ACCOUNT)
    of_chosen = [one for one in memberships if str(one.account_id) == chosen]
    return next(iter(of_chosen or memberships), None)
