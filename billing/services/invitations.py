"""Asks people by e-mail to become members of an account.

The e-mail's text is kept with a mark where the token stands, which is put in as it is sent: the
token is made from the installation's secret, so that neither the table of messages nor a dump of
the database lets anybody in.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.crypto import salted_hmac

from billing.letters import Content, moment_text
from billing.models import Account, Invitation, MailMessage, Membership
from billing.models.members import OPEN
from billing.services.accounts import lock_account, refuse_closing
from billing.services.members import Actor, MemberRefusedError, members_of
from billing.services.messages import Notice, write_messages

VALID_FOR = timedelta(days=7)
MOST_MEMBERS = 500
"""Of an account, those who are invited counted too."""
MOST_A_DAY = 100
"""Invitations of an account: more would be mail that nobody asked for."""
LONGEST_USERNAME = 150
TOKEN_MARK = "[the token of the invitation]"  # noqa: S105 - a mark, no token
"""Stands in a message where the token is put in as it is sent."""
PATH = "invitations"
_SALT = "billing.invitations"
_A_DAY = timedelta(days=1)


class InvitationRefusedError(MemberRefusedError):
    """The invitation cannot be made or accepted; the message says why."""


class NoSuchInvitationError(InvitationRefusedError):
    """The token is of no invitation that is open: never, not any more, or not yet again."""


def invite(
    account_id: UUID, *, email: str, role: Membership.Role, by: Actor, now: datetime
) -> Invitation:
    """Ask an address to become a member, by an e-mail with a token that is valid for a week.

    Asking again replaces the invitation, and the token before is no good any more. Raises
    MemberRefusedError, Account.DoesNotExist.
    """
    address = _checked(email)
    by.refuse_above(role)
    with transaction.atomic():
        account = lock_account(account_id)
        refuse_closing(account)
        if members_of(account_id).filter(user__email__iexact=address).exists():
            raise InvitationRefusedError(f"email {address} is a member's already.")
        _refuse_too_many(account, address, now)
        invitations_of(account_id).filter(OPEN, email=address).update(withdrawn_at=now)
        key = uuid.uuid4()
        invitation = Invitation.objects.create(
            pk=key,
            account=account,
            email=address,
            role=role,
            token_hash=_hash(_token_of(key)),
            invited_by_id=by.user_id,
            invited_at=now,
            expires_at=now + VALID_FOR,
        )
        write_messages([_notice(invitation)], now=now)
    return invitation


def invitations_of(account_id: UUID) -> QuerySet[Invitation]:
    """Return all the account's invitations, the newest first."""
    return Invitation.objects.filter(account=account_id).select_related("invited_by")


def open_invitations(account_id: UUID, *, now: datetime) -> QuerySet[Invitation]:
    """Return the account's invitations that can be accepted, the newest first."""
    return invitations_of(account_id).filter(OPEN, expires_at__gt=now)


def withdraw_invitation(
    account_id: UUID, invitation_id: UUID, *, by: Actor, now: datetime
) -> Invitation:
    """Let an invitation be accepted no longer. Safe to repeat.

    Raises MemberRefusedError when it was accepted, Invitation.DoesNotExist.
    """
    with transaction.atomic():
        lock_account(account_id)
        invitation = invitations_of(account_id).get(pk=invitation_id)
        by.refuse_above(invitation.role)
        if invitation.accepted_at:
            raise InvitationRefusedError("It was accepted. Remove the member instead.")
        if invitation.withdrawn_at is None:
            invitation.withdrawn_at = now
            invitation.save(update_fields=["withdrawn_at"])
    return invitation


def find_invitation(token: str, *, now: datetime) -> Invitation:
    """Return the invitation that can be accepted with this token, with its account.

    Raises NoSuchInvitationError.
    """
    invitation = (
        Invitation.objects.filter(OPEN, token_hash=_hash(token), expires_at__gt=now)
        .select_related("account")
        .first()
    )
    if invitation is None:
        raise NoSuchInvitationError(
            "The invitation is not valid: it was used, taken back, replaced or is older than "
            f"{VALID_FOR.days} days. Ask for another one."
        )
    return invitation


def accept_invitation(token: str, *, user_id: int, now: datetime) -> Membership:
    """Make a user a member, whose address was invited. Once for a token.

    The same user may repeat it. A member of the account stays what they are. Raises
    InvitationRefusedError.
    """
    user = User.objects.get(pk=user_id)
    accepted = Invitation.objects.filter(token_hash=_hash(token), accepted_by=user).first()
    if accepted and (member := members_of(accepted.account_id).filter(user=user).first()):
        return member
    account_id = find_invitation(token, now=now).account_id
    with transaction.atomic():
        lock_account(account_id)
        return _accept(find_invitation(token, now=now), user, now=now)


def accept_as_new_user(token: str, *, password: str, now: datetime) -> Membership:
    """Make a user with the invited address, and a member of them. Once for a token.

    The address is the user's name to sign in with. Raises InvitationRefusedError, also when the
    address is a user's already: they sign in and accept.
    """
    invitation = find_invitation(token, now=now)
    address = invitation.email
    user = User(username=address, email=address)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvitationRefusedError(f"password: {' '.join(error.messages)}") from None
    user.set_password(password)
    with transaction.atomic():
        lock_account(invitation.account_id)
        invitation = find_invitation(token, now=now)
        if User.objects.filter(email__iexact=address).exists():
            raise InvitationRefusedError(f"{address} has a user already. Sign in to accept.")
        try:
            with transaction.atomic():
                user.save(force_insert=True)
        except IntegrityError:
            # Invited to another account too, and quicker there; or another's chosen name.
            raise InvitationRefusedError(
                f"{address} has a user already. Sign in to accept."
            ) from None
        return _accept(invitation, user, now=now)


def with_token(message: MailMessage, text: str) -> str:
    """Return a body as it is sent: of an invitation, with its token.

    Raises ValueError when the invitation cannot be accepted any more.
    """
    if message.kind != MailMessage.Kind.INVITATION:
        return text
    invitation = Invitation.objects.filter(OPEN, pk=message.subject_key).first()
    if invitation is None:
        raise ValueError("The invitation was accepted, taken back or replaced.")
    return text.replace(TOKEN_MARK, _token_of(invitation.pk))


def _accept(invitation: Invitation, user: User, *, now: datetime) -> Membership:
    """Make the user a member. The caller has locked the account, and read the invitation then."""
    if user.email.strip().lower() != invitation.email:
        raise InvitationRefusedError(
            f"{invitation.email} is invited. Sign in as the user with that address."
        )
    member, _ = Membership.objects.get_or_create(
        user=user, account=invitation.account, defaults={"role": invitation.role}
    )
    invitation.accepted_at, invitation.accepted_by = now, user
    invitation.save(update_fields=["accepted_at", "accepted_by"])
    return member


def _checked(email: str) -> str:
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError:
        raise InvitationRefusedError("email is no e-mail address.") from None
    if len(address) > LONGEST_USERNAME:
        raise InvitationRefusedError(f"email has more than {LONGEST_USERNAME} characters.")
    return address


def _refuse_too_many(account: Account, address: str, now: datetime) -> None:
    waiting = open_invitations(account.pk, now=now).exclude(email=address)
    if members_of(account.pk).count() + waiting.count() >= MOST_MEMBERS:
        raise InvitationRefusedError(
            f"The account has {MOST_MEMBERS} members, those invited counted. Remove some first."
        )
    if invitations_of(account.pk).filter(invited_at__gt=now - _A_DAY).count() >= MOST_A_DAY:
        raise InvitationRefusedError(
            f"The account has invited {MOST_A_DAY} times in 24 hours. Go on tomorrow."
        )


def _notice(invitation: Invitation) -> Notice:
    account = invitation.account
    inviter = invitation.invited_by
    facts = [
        ("Role", Membership.Role(invitation.role).label),
        ("Valid until", moment_text(invitation.expires_at, ZoneInfo(account.time_zone))),
    ]
    link = f"{settings.PUBLIC_URL}/{PATH}/{TOKEN_MARK}" if settings.PUBLIC_URL else ""
    if not link:
        facts.append(("Code", TOKEN_MARK))
    return Notice(
        account=account,
        kind=MailMessage.Kind.INVITATION,
        about=str(invitation.pk),
        content=Content(
            template="invitation",
            subject=f"Invitation to {account.name}",
            account_name=account.name,
            facts=facts,
            page=("Accept the invitation", link) if link else ("", ""),
            says={
                "inviter": (inviter.get_full_name() or inviter.email) if inviter else account.name,
                "role": str(Membership.Role(invitation.role).label).lower(),
            },
        ),
        to=invitation.email,
    )


def _token_of(invitation_id: UUID) -> str:
    digest = salted_hmac(_SALT, str(invitation_id), algorithm="sha256").digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _hash(token: str) -> str:
    # A plain hash is enough: the token is 256 bits that nobody can guess.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
