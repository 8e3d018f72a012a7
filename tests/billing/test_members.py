from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account, AuditEntry, Invitation, MailMessage, Membership
from billing.services import invitations
from billing.services.invitations import (
    MOST_A_DAY,
    TOKEN_MARK,
    VALID_FOR,
    InvitationRefusedError,
    NoSuchInvitationError,
)
from billing.services.members import (
    Actor,
    LastOwnerError,
    MemberRefusedError,
    RoleTooHighError,
)
from tests.billing.mail import ADDRESS, add_member, open_with_owner
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

Role = Membership.Role
BEA = "bea@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - of a test's user
LATER = NOON + timedelta(hours=1)
PORTAL = "https://billing.example.com"
AN_OWNER = Actor(Role.OWNER)


@pytest.fixture(autouse=True)
def _mail(settings: Settings) -> None:
    settings.MAIL_IS_SET_UP = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    settings.PUBLIC_URL = PORTAL


def invite(account: Account, email: str = BEA, role: Role = Role.BILLING) -> Invitation:
    return services.invite(account.pk, email=email, role=role, by=AN_OWNER, now=NOON)


def sent() -> list[Any]:
    while services.send_next_message(NOON):
        pass
    return list(mail.outbox)


def token_in(text: str) -> str:
    return text.split(f"{PORTAL}/invitations/")[1].split(maxsplit=1)[0]


def invited(account: Account, email: str = BEA, role: Role = Role.BILLING) -> str:
    """Invite, and return the token of the e-mail that is sent last."""
    invite(account, email, role)
    return token_in(str(sent()[-1].body))


def member(account: Account, address: str, role: Role) -> Membership:
    user = add_member(account, address, role)
    return Membership.objects.get(user=user, account=account)


def test_an_invitation_is_sent_to_the_address_alone_with_a_link_to_the_portal() -> None:
    invite(open_with_owner())
    [email] = sent()
    assert email.to == [BEA]
    token = token_in(str(email.body))
    assert len(token) >= 40
    [(html, _)] = email.alternatives
    body = f"{email.body}{html}"
    assert f'href="{PORTAL}/invitations/{token}"' in html
    assert TOKEN_MARK not in body


def test_the_token_is_in_no_table() -> None:
    token = invited(open_with_owner())
    message = MailMessage.objects.get()
    assert TOKEN_MARK in message.text
    rows = [*Invitation.objects.values(), *MailMessage.objects.values()]
    audit = AuditEntry.objects.values()
    assert token not in f"{rows} {list(audit)}"
    assert "token_hash" not in f"{list(audit)}"


def test_without_a_public_address_the_token_itself_is_sent(settings: Settings) -> None:
    settings.PUBLIC_URL = ""
    account = open_with_owner()
    invite(account)
    token = str(sent()[0].body).split("Code: ")[1].split()[0]
    user = User.objects.create_user("bea", email=BEA)
    assert services.accept_invitation(token, user_id=user.pk, now=NOON).account == account


def test_a_user_with_the_address_becomes_a_member_and_may_repeat_it() -> None:
    account = open_with_owner()
    token = invited(account)
    user = User.objects.create_user("bea", email=BEA.upper())
    first = services.accept_invitation(token, user_id=user.pk, now=LATER)
    assert (first.account, first.role) == (account, Role.BILLING)
    assert services.accept_invitation(token, user_id=user.pk, now=LATER) == first
    invitation = Invitation.objects.get()
    assert (invitation.accepted_at, invitation.accepted_by) == (LATER, user)


def test_a_token_does_not_bring_a_removed_member_back() -> None:
    account = open_with_owner()
    token = invited(account)
    user = User.objects.create_user("bea", email=BEA)
    made = services.accept_invitation(token, user_id=user.pk, now=LATER)
    services.remove_member(account.pk, made.pk, by=AN_OWNER, now=LATER)
    with pytest.raises(NoSuchInvitationError):
        services.accept_invitation(token, user_id=user.pk, now=LATER)


def test_a_user_with_another_address_is_refused() -> None:
    token = invited(open_with_owner())
    eve = User.objects.create_user("eve", email="eve@example.com")
    with pytest.raises(InvitationRefusedError, match="Sign in as"):
        services.accept_invitation(token, user_id=eve.pk, now=NOON)
    assert not Membership.objects.filter(user=eve).exists()


def test_a_new_user_is_made_with_the_address_that_was_invited() -> None:
    token = invited(open_with_owner())
    made = services.accept_as_new_user(token, password=PASSWORD, now=LATER)
    user = made.user
    assert (user.username, user.email, user.is_staff) == (BEA, BEA, False)
    assert user.check_password(PASSWORD)
    with pytest.raises(NoSuchInvitationError):
        services.accept_as_new_user(token, password=PASSWORD, now=LATER)


def test_a_weak_password_makes_no_user() -> None:
    token = invited(open_with_owner())
    with pytest.raises(InvitationRefusedError, match="password"):
        services.accept_as_new_user(token, password="12345", now=LATER)  # noqa: S106 - it is refused
    assert not User.objects.filter(email=BEA).exists()


def test_no_second_user_is_made_for_an_address() -> None:
    token = invited(open_with_owner())
    User.objects.create_user("bea", email=BEA.upper())
    with pytest.raises(InvitationRefusedError, match="Sign in to accept"):
        services.accept_as_new_user(token, password=PASSWORD, now=LATER)


def test_a_name_that_somebody_else_chose_is_not_taken_over() -> None:
    token = invited(open_with_owner())
    squatter = User.objects.create_user(BEA, email="eve@example.com")
    with pytest.raises(InvitationRefusedError, match="has a user already"):
        services.accept_as_new_user(token, password=PASSWORD, now=LATER)
    assert not Membership.objects.filter(user=squatter).exists()


@pytest.mark.parametrize("late", [VALID_FOR, VALID_FOR + timedelta(days=1)])
def test_an_invitation_is_good_for_a_week(late: timedelta) -> None:
    token = invited(open_with_owner())
    user = User.objects.create_user("bea", email=BEA)
    with pytest.raises(NoSuchInvitationError):
        services.accept_invitation(token, user_id=user.pk, now=NOON + late)
    just_before = NOON + VALID_FOR - timedelta(seconds=1)
    made = services.accept_invitation(token, user_id=user.pk, now=just_before)
    assert made.user == user


def test_inviting_again_replaces_the_invitation_and_its_token() -> None:
    account = open_with_owner()
    first = invited(account, role=Role.VIEWER)
    second = invited(account, role=Role.BILLING)
    assert first != second
    user = User.objects.create_user("bea", email=BEA)
    with pytest.raises(NoSuchInvitationError):
        services.accept_invitation(first, user_id=user.pk, now=NOON)
    assert services.accept_invitation(second, user_id=user.pk, now=NOON).role == Role.BILLING


def test_what_was_withdrawn_before_it_was_sent_is_not_sent() -> None:
    account = open_with_owner()
    invitation = invite(account)
    services.withdraw_invitation(account.pk, invitation.pk, by=AN_OWNER, now=NOON)
    services.withdraw_invitation(account.pk, invitation.pk, by=AN_OWNER, now=NOON)
    assert not sent()
    assert "taken back" in MailMessage.objects.get().last_error


def test_an_accepted_invitation_is_not_withdrawn() -> None:
    account = open_with_owner()
    token = invited(account)
    services.accept_as_new_user(token, password=PASSWORD, now=NOON)
    with pytest.raises(InvitationRefusedError, match="Remove the member"):
        services.withdraw_invitation(account.pk, Invitation.objects.get().pk, by=AN_OWNER, now=NOON)


def test_nobody_gives_a_role_above_their_own() -> None:
    account = open_with_owner()
    clerk = Actor(Role.BILLING)
    viewer = member(account, BEA, Role.VIEWER)
    owner = Membership.objects.get(role=Role.OWNER)
    with pytest.raises(RoleTooHighError):
        services.invite(account.pk, email="c@example.com", role=Role.OWNER, by=clerk, now=NOON)
    with pytest.raises(RoleTooHighError):
        services.change_role(account.pk, viewer.pk, role=Role.OWNER, by=clerk, now=NOON)
    with pytest.raises(RoleTooHighError):
        services.change_role(account.pk, owner.pk, role=Role.VIEWER, by=clerk, now=NOON)
    with pytest.raises(RoleTooHighError):
        services.remove_member(account.pk, owner.pk, by=clerk, now=NOON)
    changed = services.change_role(account.pk, viewer.pk, role=Role.BILLING, by=clerk, now=NOON)
    assert changed.role == Role.BILLING


def test_an_account_keeps_an_owner() -> None:
    account = open_with_owner()
    owner = Membership.objects.get()
    member(account, BEA, Role.BILLING)
    with pytest.raises(LastOwnerError):
        services.change_role(account.pk, owner.pk, role=Role.VIEWER, by=AN_OWNER, now=NOON)
    with pytest.raises(LastOwnerError):
        services.remove_member(account.pk, owner.pk, by=AN_OWNER, now=NOON)
    gone = add_member(account, "gone@example.com")
    User.objects.filter(pk=gone.pk).update(is_active=False)
    with pytest.raises(LastOwnerError):
        services.remove_member(account.pk, owner.pk, by=AN_OWNER, now=NOON)
    member(account, "second@example.com", Role.OWNER)
    services.remove_member(account.pk, owner.pk, by=AN_OWNER, now=NOON)
    services.remove_member(account.pk, owner.pk, by=AN_OWNER, now=NOON)
    assert not Membership.objects.filter(pk=owner.pk).exists()


def test_a_member_of_another_account_is_not_found() -> None:
    account, other = open_with_owner(), open_account("Other")
    theirs = member(other, BEA, Role.VIEWER)
    with pytest.raises(Membership.DoesNotExist):
        services.change_role(account.pk, theirs.pk, role=Role.OWNER, by=AN_OWNER, now=NOON)
    services.remove_member(account.pk, theirs.pk, by=AN_OWNER, now=NOON)
    assert Membership.objects.filter(pk=theirs.pk).exists()


def test_what_a_member_invited_goes_with_their_role() -> None:
    account = open_with_owner()
    second = member(account, BEA, Role.OWNER)
    by = Actor(Role.OWNER, user_id=second.user_id)
    for email, role in [("o@example.com", Role.OWNER), ("v@example.com", Role.VIEWER)]:
        services.invite(account.pk, email=email, role=role, by=by, now=NOON)
    services.change_role(account.pk, second.pk, role=Role.BILLING, by=AN_OWNER, now=NOON)
    waiting = services.open_invitations(account.pk, now=NOON)
    assert [row.email for row in waiting] == ["v@example.com"]
    services.remove_member(account.pk, second.pk, by=AN_OWNER, now=NOON)
    assert not services.open_invitations(account.pk, now=NOON).exists()


@pytest.mark.parametrize(
    "email", ["", "no address", "a@b", "x" * 150 + "@example.com", "a\n@b.com"]
)
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(InvitationRefusedError, match="email"):
        invite(open_with_owner(), email)


def test_who_is_a_member_is_not_invited() -> None:
    with pytest.raises(InvitationRefusedError, match="already"):
        invite(open_with_owner(), ADDRESS.upper())


def test_an_account_invites_so_often_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_A_DAY == 100
    monkeypatch.setattr(invitations, "MOST_A_DAY", 2)
    account = open_with_owner()
    invite(account)
    invite(account)
    with pytest.raises(InvitationRefusedError, match="tomorrow"):
        invite(account)
    services.invite(
        account.pk, email=BEA, role=Role.VIEWER, by=AN_OWNER, now=NOON + timedelta(days=1)
    )


def test_an_account_has_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "MOST_MEMBERS", 2)
    account = open_with_owner()
    invite(account)
    invite(account)
    with pytest.raises(MemberRefusedError, match="Remove some"):
        invite(account, "c@example.com")


def test_who_came_and_went_is_in_the_audit_trail() -> None:
    account = open_with_owner()
    made = member(account, BEA, Role.VIEWER)
    services.change_role(account.pk, made.pk, role=Role.BILLING, by=AN_OWNER, now=NOON)
    services.remove_member(account.pk, made.pk, by=AN_OWNER, now=NOON)
    entries = AuditEntry.objects.filter(table_name="billing_membership", row_id=str(made.pk))
    assert list(entries.order_by("id").values_list("operation", "account_id")) == [
        ("insert", account.pk),
        ("update", account.pk),
        ("delete", account.pk),
    ]
