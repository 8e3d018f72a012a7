from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing import services
from billing.models import Account, AccountClosing, ApiKey, Invitation, Membership
from tests.billing import admin_pages
from tests.billing.admin_pages import act, formset, page, press, text_of
from tests.billing.mail import open_with_owner
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

LATER = NOON + timedelta(days=1)
STATES = ("open", "expired", "accepted", "withdrawn")


@pytest.fixture(autouse=True)
def _it_is_later(set_clock: Callable[[datetime], None]) -> None:
    set_clock(LATER)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def invitation_to(account: Account, email: str = "new@example.com") -> Invitation:
    by = services.Actor(Membership.Role.OWNER)
    return services.invite(account.pk, email=email, role=Membership.Role.OWNER, by=by, now=NOON)


@pytest.mark.parametrize(
    ("columns", "state"),
    [
        ({}, "open"),
        ({"expires_at": LATER}, "expired"),
        ({"withdrawn_at": LATER}, "withdrawn"),
        ({"accepted_at": LATER}, "accepted"),
    ],
)
def test_invitations_are_found_by_what_became_of_them(
    finance: Client, columns: dict[str, object], state: str
) -> None:
    invitation = invitation_to(open_account())
    if state == "accepted":
        columns = {**columns, "accepted_by": User.objects.create_user("new")}
    Invitation.objects.update(**columns)
    for name in STATES:
        listed = text_of(finance.get(page(Invitation), {"state": name}))
        assert (f"/{invitation.pk}/change/" in listed) == (name == state)
    shown = finance.get(page(Invitation, invitation.pk, "change")).content.decode()
    assert f">{state}<" in shown.replace("\n", "").replace(" ", "")
    assert invitation.token_hash not in shown


def test_an_invitation_is_withdrawn_by_whoever_has_the_right(finance: Client) -> None:
    first, second = (invitation_to(open_account(name)) for name in ("Ada", "Bob"))
    shown = text_of(press(finance, first, "withdraw"))
    assert "new@example.com is not invited any more." in shown
    act(finance, Invitation, "withdraw_chosen", second.pk)
    assert set(Invitation.objects.values_list("withdrawn_at", flat=True)) == {LATER}


def test_an_invitation_that_was_accepted_stays_so(finance: Client) -> None:
    invitation = invitation_to(open_account())
    accepted = {"accepted_at": NOON, "accepted_by": User.objects.create_user("new")}
    Invitation.objects.update(**accepted)
    shown = text_of(press(finance, invitation, "withdraw"))
    assert "It was accepted. Remove the member instead." in shown
    invitation.refresh_from_db()
    assert invitation.withdrawn_at is None


def test_members_are_found_by_account_and_role(finance: Client) -> None:
    account = open_with_owner()
    member = Membership.objects.get(account=account)
    for said, is_found in (
        ({"account__id__exact": str(account.pk)}, True),
        ({"account__id__exact": str(open_account("Bob").pk)}, False),
        ({"role__exact": "owner"}, True),
        ({"role__exact": "viewer"}, False),
        ({"q": member.user.email}, True),
    ):
        listed = text_of(finance.get(page(Membership), said))
        assert (f"/{member.pk}/change/" in listed) == is_found, said
    assert member.user.email in text_of(finance.get(page(Membership, member.pk, "change")))


def test_keys_show_what_they_may_do(finance: Client) -> None:
    issued = services.issue_api_key(
        open_account().pk, name="ci", scopes=["read", "admin"], expires_at=LATER, now=NOON
    )
    for address in (page(ApiKey), page(ApiKey, issued.row.pk, "change")):
        shown = text_of(finance.get(address))
        assert "read, admin" in shown
        assert issued.row.key_hash not in shown


def test_a_key_that_is_refused_says_why_and_the_others_are_issued(finance: Client) -> None:
    closing, open_one = open_account("Ada"), open_account("Bob")
    services.close_account(closing.pk, now=NOON)
    shown = act(finance, Account, "issue_api_key", closing.pk, open_one.pk)
    assert "sbx_live_" in shown
    assert [key.account for key in ApiKey.objects.all()] == [open_one]
    shown = act(finance, Account, "issue_api_key", closing.pk)
    assert "Ada: " in shown
    assert ApiKey.objects.count() == 1


def test_a_closing_shows_how_far_it_is_and_what_it_waits_for(finance: Client) -> None:
    account = open_account()
    services.close_account(account.pk, reason="We move on", now=NOON)
    services.advance_closing(account.pk, now=NOON)
    assert "The last period is not invoiced yet." in text_of(finance.get(page(AccountClosing)))
    shown = text_of(finance.get(page(AccountClosing, account.pk, "change")))
    for words in ("We move on", "settling", "The last period is not invoiced yet."):
        assert words in shown
    for columns, state in (
        ({"ends_at": None}, "sandboxes stop"),
        ({"ends_at": NOON}, "settling"),
        ({"closed_at": LATER}, "closed"),
    ):
        Account.objects.update(**columns)
        for name in ("sandboxes stop", "settling", "closed"):
            listed = text_of(finance.get(page(AccountClosing), {"state": name}))
            assert (f"/{account.pk}/change/" in listed) == (name == state)
    listed = text_of(finance.get(page(Account), {"closing_at__isempty": "0"}))
    assert str(account.pk) in listed


def save_members(finance: Client, account: Account, *rows: dict[str, object]) -> str:
    """Save the account's page with its members so; return what it says."""
    form: dict[str, str] = {"name": account.name, "tax_rate": "0"}
    for other in ("subscriptions", "unpriced_usage", "api_keys"):
        form |= formset(other)
    known = sum(1 for row in rows if "id" in row)
    form |= {"memberships-TOTAL_FORMS": str(len(rows)), "memberships-INITIAL_FORMS": str(known)}
    for at, row in enumerate(rows):
        form |= {f"memberships-{at}-{name}": str(value) for name, value in row.items()}
        form[f"memberships-{at}-account"] = str(account.pk)
    return text_of(finance.post(page(Account, account.pk, "change"), form, follow=True))


def row_of(member: Membership, **said: object) -> dict[str, object]:
    return {"id": member.pk, "user": member.user_id, "role": member.role, **said}


@pytest.mark.parametrize("said", [{"DELETE": "on"}, {"role": "viewer"}])
def test_staff_leave_an_account_an_owner_too(finance: Client, said: dict[str, object]) -> None:
    account = open_with_owner()
    member = Membership.objects.get()
    shown = save_members(finance, account, row_of(member, **said))
    assert "The account needs an owner. Make another member owner first." in shown
    assert Membership.objects.get().role == "owner"


def test_staff_put_another_owner_in_place_of_the_last_one(finance: Client) -> None:
    account = open_with_owner()
    member = Membership.objects.get()
    by = services.Actor(Membership.Role.OWNER, member.user_id)
    services.invite(
        account.pk, email="me@example.com", role=Membership.Role.OWNER, by=by, now=LATER
    )
    other = User.objects.create_user("bea")
    added = {"user": other.pk, "role": "owner"}
    shown = save_members(finance, account, row_of(member, DELETE="on"), added)
    assert "was changed successfully" in shown
    assert [one.user for one in Membership.objects.all()] == [other]
    # Who goes leaves no way back in.
    assert Invitation.objects.get().withdrawn_at == LATER


def test_another_user_in_the_place_of_a_member_is_another_member(finance: Client) -> None:
    account = open_with_owner()
    member = Membership.objects.get()
    other = User.objects.create_user("bea")
    save_members(finance, account, row_of(member, user=other.pk))
    now_there = Membership.objects.get()
    assert (now_there.user, now_there.role) == (other, "owner")
    assert now_there.pk != member.pk


def test_a_role_is_changed_where_another_owner_stays(finance: Client) -> None:
    account = open_with_owner()
    first = Membership.objects.get()
    second = Membership.objects.create(
        user=User.objects.create_user("bea"), account=account, role=Membership.Role.OWNER
    )
    save_members(finance, account, row_of(first, role="billing"), row_of(second))
    assert dict(Membership.objects.values_list("pk", "role")) == {
        first.pk: "billing",
        second.pk: "owner",
    }
