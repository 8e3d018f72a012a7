"""Owners who demote each other, and invitations that are accepted twice, at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from billing import services
from billing.models import Account, Invitation, Membership
from billing.services import invitations, members
from billing.services.members import Actor, LastOwnerError
from tests.billing.mail import add_member, open_with_owner
from tests.billing.usage import NOON
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

Role = Membership.Role
BEA = "bea@example.com"
PASSWORD = "correct horse battery"  # noqa: S105 - of a test's user


def without_a_lock(account_id: UUID) -> Account:
    return Account.objects.get(pk=account_id)


def owners_demote_each_other() -> int:
    """Let two owners make each other viewers; return how many owners are left."""
    account = open_with_owner()
    add_member(account, BEA)
    owners = list(Membership.objects.order_by("pk"))

    def demote(number: int) -> None:
        with suppress(LastOwnerError):
            services.change_role(
                account.pk,
                owners[1 - number].pk,
                role=Role.VIEWER,
                by=Actor(Role.OWNER, user_id=owners[number].user_id),
                now=NOON,
            )

    assert run_at_once(demote, workers=2) == [0, 0]
    return Membership.objects.filter(role=Role.OWNER).count()


def test_two_owners_who_demote_each_other_leave_one() -> None:
    assert owners_demote_each_other() == 1


def test_without_the_accounts_lock_they_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Callable[[Membership], None] = members._refuse_last_owner
    meeting = get_context("fork").Barrier(2)

    def look_and_wait(member: Membership) -> None:
        looked(member)
        meeting.wait(20)

    monkeypatch.setattr(members, "lock_account", without_a_lock)
    monkeypatch.setattr(members, "_refuse_last_owner", look_and_wait)
    assert owners_demote_each_other() == 0


def owners_remove_each_other() -> int:
    """Let two owners remove each other; return how many owners are left."""
    account = open_with_owner()
    add_member(account, BEA)
    owners = list(Membership.objects.order_by("pk"))

    def remove(number: int) -> None:
        by = Actor(Role.OWNER, user_id=owners[number].user_id)
        with suppress(LastOwnerError):
            services.remove_member(account.pk, owners[1 - number].pk, by=by, now=NOON)

    assert run_at_once(remove, workers=2) == [0, 0]
    return Membership.objects.filter(role=Role.OWNER).count()


def test_two_owners_who_remove_each_other_leave_one() -> None:
    assert owners_remove_each_other() == 1


def test_without_the_accounts_lock_they_remove_both(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Callable[[Membership], None] = members._refuse_last_owner
    meeting = get_context("fork").Barrier(2)

    def look_and_wait(member: Membership) -> None:
        looked(member)
        meeting.wait(20)

    monkeypatch.setattr(members, "lock_account", without_a_lock)
    monkeypatch.setattr(members, "_refuse_last_owner", look_and_wait)
    assert owners_remove_each_other() == 0


def test_an_invitation_makes_one_user_and_one_member() -> None:
    account = open_with_owner()
    invitation = services.invite(
        account.pk, email=BEA, role=Role.BILLING, by=Actor(Role.OWNER), now=NOON
    )
    token = invitations._token_of(invitation.pk)

    def accept(_number: int) -> None:
        with suppress(services.InvitationRefusedError):
            services.accept_as_new_user(token, password=PASSWORD, now=NOON)

    assert run_at_once(accept) == [0] * WORKERS
    assert User.objects.filter(email=BEA).count() == 1
    assert Membership.objects.filter(user__email=BEA).count() == 1


def accepted_while_it_is_withdrawn(account: Account) -> tuple[int, int]:
    """Let a user accept, twice, as the owner withdraws; return members made, and withdrawals."""
    user = User.objects.create_user("bea", email=BEA)
    invitation = services.invite(
        account.pk, email=BEA, role=Role.BILLING, by=Actor(Role.OWNER), now=NOON
    )
    token = invitations._token_of(invitation.pk)

    def work(number: int) -> None:
        with suppress(services.MemberRefusedError):
            if number == 0:
                services.withdraw_invitation(
                    account.pk, invitation.pk, by=Actor(Role.OWNER), now=NOON
                )
            else:
                services.accept_invitation(token, user_id=user.pk, now=NOON)

    assert run_at_once(work, workers=3) == [0] * 3
    withdrawn = Invitation.objects.filter(withdrawn_at__isnull=False)
    return Membership.objects.filter(user=user).count(), withdrawn.count()


def test_an_invitation_is_accepted_once_or_withdrawn() -> None:
    assert accepted_while_it_is_withdrawn(open_with_owner()) in {(1, 0), (0, 1)}
