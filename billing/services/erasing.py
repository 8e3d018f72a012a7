"""Erases what is known of the people of a closed account. What the law has kept stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import CharField, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat

from billing.models import (
    Account,
    AccountClosing,
    ApiKey,
    Budget,
    CreditNote,
    Delivery,
    IdempotentCall,
    Invitation,
    Invoice,
    InvoiceFile,
    MailMessage,
    Membership,
    WebhookEndpoint,
)
from billing.services.accounts import lock_account

ERASED: Final = "(erased)"
NOWHERE: Final = "https://erased.invalid/"
# Columns of rows of people and accounts, as the audit trail names them.
_IN_THE_TRAIL: Final = (
    *("name", "address", "tax_id", "billing_email", "email", "url", "description"),
    *("username", "first_name", "last_name"),
)


class ErasureRefusedError(ValueError):
    """The account's people cannot be erased yet; the message says what to do first."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one kind, and what becomes of them; `why` is empty where they are erased."""

    what: str
    rows: int
    why: str = ""


Eraser = Callable[[Account], Iterable[Part]]
"""Erases what another app knows of an account's people. The account is locked."""
_erasers: list[Eraser] = []


def register_eraser(erase: Eraser) -> None:
    """Let `erase` be called for each account that is erased. Safe to repeat."""
    if erase not in _erasers:
        _erasers.append(erase)


def erase_account(account_id: UUID, *, now: datetime) -> list[Part]:
    """Erase names, addresses and texts of an account and its people; return what became of each.

    Only users that belong to no other account, and are not staff, are erased with it. Final
    invoices, credit notes, their files and the ledgers stay as they are. Safe to repeat: a second
    run finds nothing. Raises ErasureRefusedError, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        if account.closed_at is None:
            raise ErasureRefusedError(
                "The account is not closed. Close it, and wait until its last invoice is paid."
            )
        users = list(_own_users(account).values_list("pk", flat=True))
        parts = [
            Part("account: name, address, tax number, e-mail", _erase_account_row(account)),
            *_erase_people(account, users),
            *_erase_texts(account, now),
        ]
        for erase in _erasers:
            parts += erase(account)
        # Last, as the changes above are in the trail as well.
        parts.append(Part("audit trail: names and addresses", _erase_trail(account, users)))
    return [*parts, *_kept(account)]


def _own_users(account: Account) -> QuerySet[User]:
    others = Membership.objects.exclude(account=account).values("user")
    return User.objects.filter(
        membership__account=account, is_staff=False, is_superuser=False
    ).exclude(pk__in=others)


def _erase_account_row(account: Account) -> int:
    fresh = {
        "name": f"Erased account {str(account.pk)[:8]}",
        "address": "",
        "tax_id": "",
        "billing_email": "",
    }
    changed = any(getattr(account, name) != value for name, value in fresh.items())
    if changed:
        Account.objects.filter(pk=account.pk).update(**fresh)
    closing = AccountClosing.objects.filter(account=account).exclude(reason="").update(reason="")
    shown = _log_of(Account, [account.pk]).update(object_repr=ERASED, change_message="")
    return int(changed) + closing + shown


def _erase_people(account: Account, users: list[int]) -> Iterable[Part]:
    erased = User.objects.filter(pk__in=users).update(
        username=Concat(Value("erased-"), Cast("pk", CharField())),
        email="",
        first_name="",
        last_name="",
        password=make_password(None),
        is_active=False,
    )
    _log_of(User, users).update(object_repr=ERASED, change_message="")
    yield Part("users who belong to no other account", erased)
    gone, _ = Membership.objects.filter(account=account).delete()
    yield Part("memberships", gone)
    invited = Invitation.objects.filter(account=account).exclude(email__endswith="@erased.invalid")
    erased = invited.update(email=Concat(Cast("pk", CharField()), Value("@erased.invalid")))
    yield Part("invitations: address", erased)


def _erase_texts(account: Account, now: datetime) -> Iterable[Part]:
    # None of them is sent any more.
    waiting = Q(sent_at__isnull=True, given_up_at__isnull=True, handed_over_at__isnull=True)
    mails = MailMessage.objects.filter(account=account)
    mails.filter(waiting).update(given_up_at=now, claimed_until=None)
    yield Part(
        "e-mails: recipient and text",
        mails.exclude(subject=ERASED).update(
            recipient=Concat(Value("erased-"), Cast("pk", CharField())),
            subject=ERASED,
            text=ERASED,
            html=ERASED,
            last_error="",
        ),
    )
    keys = ApiKey.objects.filter(account=account).exclude(name=ERASED)
    yield Part("API keys: name", keys.update(name=ERASED))
    budgets = Budget.objects.filter(account=account).exclude(name__startswith=ERASED)
    yield Part(
        "budgets: name",
        budgets.update(name=Concat(Value(f"{ERASED} "), Cast("pk", CharField()))),
    )
    endpoints = WebhookEndpoint.objects.filter(account=account).exclude(url=NOWHERE)
    removed = endpoints.update(url=NOWHERE, description="", removed_at=now)
    answers = Delivery.objects.filter(endpoint__account=account).exclude(response_excerpt="")
    answers.update(response_excerpt="")
    yield Part("webhook endpoints: address, description and answers", removed)
    calls, _ = IdempotentCall.objects.filter(account=account).delete()
    yield Part("answers kept for repeated calls", calls)


def _erase_trail(account: Account, users: list[int]) -> int:
    """Take names out of the trail's entries, which only this function of the database may."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT billing_erase_audit(%s, %s, %s)",
            [account.pk, [str(user) for user in users], list(_IN_THE_TRAIL)],
        )
        return int(cursor.fetchone()[0])


def _kept(account: Account) -> Iterable[Part]:
    law = "the law has invoices kept as they were sent"
    final = Invoice.objects.filter(account=account, number__isnull=False)
    yield Part("final invoices, with name and address", final.count(), law)
    files = InvoiceFile.objects.filter(invoice__account=account)
    yield Part("files of invoices", files.count(), law)
    notes = CreditNote.objects.filter(invoice__account=account)
    yield Part("credit notes", notes.count(), law)


def _log_of(model: type[Account | User], ids: Iterable[object]) -> QuerySet[LogEntry]:
    return LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(model),
        object_id__in=[str(one) for one in ids],
    ).exclude(object_repr=ERASED)
