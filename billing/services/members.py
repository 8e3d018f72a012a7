"""Who belongs to an account, as what. An account always keeps an owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from billing.models import Invitation, Membership
from billing.models.members import OPEN
from billing.services.accounts import lock_account

Role = Membership.Role
RANK: Mapping[str, int] = MappingProxyType({Role.VIEWER: 0, Role.BILLING: 1, Role.OWNER: 2})
"""Who has more rights; nobody gives or takes a role above their own."""


class MemberRefusedError(ValueError):
    """The account's members cannot be changed like this; the message says what to do."""


class LastOwnerError(MemberRefusedError):
    """The account would be left without an owner."""


class RoleTooHighError(MemberRefusedError):
    """The role is above the one of who asks."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts for an account, with which rights. No user: a program with a key of it."""

    role: Membership.Role
    user_id: int | None = None

    def refuse_above(self, role: str) -> None:
        """Raise RoleTooHighError when `role` is above the actor's own."""
        if RANK[role] > RANK[self.role]:
            raise RoleTooHighError(f"role is {role}, above your own, {self.role}. Ask an {role}.")


def members_of(account_id: UUID) -> QuerySet[Membership]:
    """Return the account's members with their users, those who came first before the others."""
    return Membership.objects.filter(account=account_id).select_related("user").order_by("pk")


def change_role(
    account_id: UUID, member_id: int, *, role: Membership.Role, by: Actor, now: datetime
) -> Membership:
    """Give a member another role. Safe to repeat.

    Invitations of theirs to a role above the new one are withdrawn. Raises MemberRefusedError,
    Membership.DoesNotExist.
    """
    with transaction.atomic():
        lock_account(account_id)
        member = members_of(account_id).get(pk=member_id)
        by.refuse_above(member.role)
        by.refuse_above(role)
        if member.role == role:
            return member
        _refuse_last_owner(member)
        member.role = role
        member.save(update_fields=["role"])
        above = [other for other in RANK if RANK[other] > RANK[role]]
        _invitations_by(member).filter(role__in=above).update(withdrawn_at=now)
    return member


def remove_member(account_id: UUID, member_id: int, *, by: Actor, now: datetime) -> None:
    """Let a member see the account no longer, from their next request on. Safe to repeat.

    Members may leave by themselves. Invitations of theirs are withdrawn. Raises
    MemberRefusedError.
    """
    with transaction.atomic():
        lock_account(account_id)
        member = members_of(account_id).filter(pk=member_id).first()
        if member is None:
            return
        by.refuse_above(member.role)
        _refuse_last_owner(member)
        _invitations_by(member).update(withdrawn_at=now)
        member.delete()


def _refuse_last_owner(member: Membership) -> None:
    if member.role != Role.OWNER:
        return
    # Only who can sign in can act as an owner.
    others = members_of(member.account_id).exclude(pk=member.pk)
    if not others.filter(role=Role.OWNER, user__is_active=True).exists():
        raise LastOwnerError("The account needs an owner. Make another member owner first.")


def _invitations_by(member: Membership) -> QuerySet[Invitation]:
    return Invitation.objects.filter(OPEN, account=member.account_id, invited_by=member.user_id)
