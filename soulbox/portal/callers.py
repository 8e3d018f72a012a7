"""Which account a session looks at, and what its member may do there."""

from __future__ import annotations

from collections.abc import Mapping

from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import TextChoices

from billing.models import Membership

CHOSEN_ACCOUNT = "account"
"""Where a session keeps which of a member's accounts is looked at, as text."""


class Scope(TextChoices):
    """What a member may do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


SCOPES_OF_ROLE: Mapping[str, frozenset[str]] = {
    Membership.Role.VIEWER: frozenset({Scope.READ}),
    Membership.Role.BILLING: frozenset({Scope.READ, Scope.WRITE}),
    Membership.Role.OWNER: frozenset(Scope.values),
}


def membership_of(user: User, session: SessionBase) -> Membership | None:
    """Return the membership in the account that the session chose, else in the user's first one."""
    memberships = list(
        Membership.objects.filter(user=user)
        .select_related("account")
        .order_by("account__name", "pk")
    )
    chosen = session.get(CHOSEN_ACCOUNT)
    of_chosen = [one for one in memberships if str(one.account_id) == chosen]
    return next(iter(of_chosen or memberships), None)
