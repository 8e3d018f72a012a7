"""Members of accounts who are signed in to the portal, and what its pages say to them."""

from __future__ import annotations

import html

from django.contrib.auth.models import User
from django.test import Client

from billing.models import Account, Membership

PORTAL_CLOCKS = (
    "soulbox.portal.pages",
    "soulbox.portal.views.invitation",
    "soulbox.portal.views.sign_up",
)
PASSWORD = "correct horse battery"  # noqa: S105 - a test's own


def add_member(account: Account, name: str, role: Membership.Role = Membership.Role.OWNER) -> User:
    """Give the account a member of this name, with an address and the password."""
    user = User.objects.create_user(name, email=f"{name}@example.com", password=PASSWORD)
    Membership.objects.create(user=user, account=account, role=role)
    return user


def signed_in(user: User) -> Client:
    """Return the user's browser."""
    client = Client()
    client.force_login(user)
    return client


def member_of(account: Account, role: Membership.Role = Membership.Role.OWNER) -> Client:
    """Return the browser of a new member of the account."""
    return signed_in(add_member(account, f"{role} of {account.pk}"[:60].replace(" ", "-"), role))


def words_of(response: object) -> str:
    """Return what a page says, as people read it."""
    content: str = response.content.decode()  # type: ignore[attr-defined]  # Django's test client's
    return html.unescape(content).replace("\N{NO-BREAK SPACE}", " ")
