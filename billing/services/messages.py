"""Writes down the e-mails that are due: each once, with its addresses and words as of then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Sum
from django.db.models.functions import Cast
from django.urls import reverse

from billing.credits import CreditKind
from billing.history import BILLING_A_PERIOD
from billing.letters import Content, day_text, moment_text, period_text, write_letter
from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    Invoice,
    InvoiceTransition,
    MailCursor,
    MailMessage,
    Membership,
)
from billing.money import Money

NOTICES_A_SWEEP = 200
"""Of each kind: about a second's work."""
OVERLAP = timedelta(hours=2)
"""A change of an invoice may be committed that much later than it says it was made."""
ROLES = (Membership.Role.OWNER, Membership.Role.BILLING)
EXPIRING = (CreditKind.PROMOTIONAL, CreditKind.PREPAID)

PATH = "invoices"
"""Where the customer's page has an invoice, as PUBLIC_URL/invoices/ID."""
_TRANSITIONS = "invoice transitions"
_CREDIT_NAMES = {CreditKind.PROMOTIONAL: "Promotional", CreditKind.PREPAID: "Prepaid"}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an account is to be told once. `about` is its key among notices of the kind.

    It goes to the account's addresses, or to the one of `to` alone.
    """

    account: Account
    kind: MailMessage.Kind
    about: str
    content: Content
    to: str = ""


def write_due_messages(now: datetime) -> int:
    """Write the e-mails of what happened to invoices, and of credit that soon expires.

    Returns of how many things. Safe to repeat, and at once: what an e-mail is about, with its
    address, is unique.
    """
    return _write_about_invoices(now) + write_messages(_credits_expiring(now), now=now)


def write_messages(notices: Sequence[Notice], *, now: datetime) -> int:
    """Write the notices' e-mails, to each address one; return how many notices there were.

    An account without an address has a row that says so. Safe to repeat.
    """
    addresses = addresses_of({notice.account.pk: notice.account for notice in notices}.values())
    rows = [
        _message(notice, address, now=now)
        # Rows refer to accounts, whose locks billing takes in this order too.
        for notice in sorted(notices, key=lambda notice: notice.account.pk)
        for address in ([notice.to] if notice.to else addresses[notice.account.pk] or [""])
    ]
    MailMessage.objects.bulk_create(rows, ignore_conflicts=True)
    return len(notices)


def addresses_of(accounts: Iterable[Account]) -> dict[UUID, list[str]]:
    """Return where each account's e-mails go: its own address, its owners' and billing people's.

    An address is in the list once, whatever its capitals.
    """
    found: defaultdict[UUID, dict[str, str]] = defaultdict(dict)
    by_id = {account.pk: account for account in accounts}
    members = Membership.objects.filter(
        account__in=by_id, role__in=ROLES, user__is_active=True
    ).order_by("pk")
    own = ((account.pk, account.billing_email) for account in by_id.values())
    for account_id, address in [*own, *members.values_list("account_id", "user__email")]:
        if address.strip():
            found[account_id].setdefault(address.casefold(), address)
    return {account_id: list(found[account_id].values()) for account_id in by_id}


def _message(notice: Notice, address: str, *, now: datetime) -> MailMessage:
    letter = write_letter(notice.content)
    fault = _fault_of(address) if address else ""
    return MailMessage(
        account=notice.account,
        kind=notice.kind,
        subject_key=notice.about,
        recipient=address,
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
        created_at=now,
        try_at=now,
        last_error=fault,
        given_up_at=now if fault else None,
    )


def _fault_of(address: str) -> str:
    # Users are also made by programs, which no form keeps from writing anything here.
    try:
        validate_email(address)
    except ValidationError:
        return "It is no e-mail address."
    return ""


def _write_about_invoices(now: datetime) -> int:
    cursor, _ = MailCursor.objects.get_or_create(
        source=_TRANSITIONS, defaults={"looked_until": now}
    )
    found = [
        *_invoices_ready(cursor.looked_until),
        *_payments_failed(cursor.looked_until),
    ]
    with transaction.atomic():
        written = write_messages(found, now=now)
        if len(found) < NOTICES_A_SWEEP:
            # Nothing was left for the next sweep, so nothing before is looked at again. Never
            # backwards: another sweep may have gone further.
            MailCursor.objects.filter(source=_TRANSITIONS, looked_until__lt=now - OVERLAP).update(
                looked_until=now - OVERLAP
            )
    return written


def _invoices_ready(since: datetime) -> list[Notice]:
    told = MailMessage.objects.filter(
        kind=MailMessage.Kind.INVOICE_READY, subject_key=OuterRef("invoice__number")
    )
    issued = (
        InvoiceTransition.objects.filter(
            ~Exists(told),
            at__gte=since,
            from_status=Invoice.Status.DRAFT,
            to_status=Invoice.Status.PENDING,
            invoice__kind__in=BILLING_A_PERIOD,
            invoice__amount_due__gt=0,
        )
        .exclude(invoice__status=Invoice.Status.VOID)
        .select_related("invoice__account")
        .order_by("at", "pk")
    )
    return [invoice_notice(change.invoice) for change in issued[:NOTICES_A_SWEEP]]


def invoice_notice(invoice: Invoice) -> Notice:
    """Return what tells an account of a final invoice."""
    return Notice(
        account=invoice.account,
        kind=MailMessage.Kind.INVOICE_READY,
        about=str(invoice.number),
        content=about_invoice(
            invoice,
            template="invoice_ready",
            subject=f"Invoice {invoice.number}: {_due(invoice)} due",
        ),
    )


def _payments_failed(since: datetime) -> list[Notice]:
    # Payments writes those of its own tries itself: it knows why, and what the customer can do.
    told = MailMessage.objects.filter(
        kind__in=[MailMessage.Kind.PAYMENT_FAILED, MailMessage.Kind.CONFIRM_PAYMENT],
        subject_key=Cast(OuterRef("pk"), CharField()),
    )
    failed = (
        InvoiceTransition.objects.filter(
            ~Exists(told), at__gte=since, to_status=Invoice.Status.PAYMENT_FAILED
        )
        .select_related("invoice__account")
        .order_by("at", "pk")
    )
    return [
        Notice(
            account=change.invoice.account,
            kind=MailMessage.Kind.PAYMENT_FAILED,
            about=str(change.pk),
            content=about_invoice(
                change.invoice,
                template="payment_failed",
                subject=f"Payment failed: invoice {change.invoice.number}, {_due(change.invoice)}",
            ),
        )
        for change in failed[:NOTICES_A_SWEEP]
    ]


def _credits_expiring(now: datetime) -> list[Notice]:
    told = MailMessage.objects.filter(
        kind=MailMessage.Kind.CREDIT_EXPIRING, subject_key=Cast(OuterRef("pk"), CharField())
    )
    expiring = (
        CreditGrant.objects.filter(
            ~Exists(told),
            kind__in=EXPIRING,
            expires_at__gt=now,
            expires_at__lte=now + timedelta(days=settings.CREDIT_EXPIRY_NOTICE_DAYS),
        )
        .alias(balance=Sum("entries__amount"))
        .filter(balance__gt=0)
        .select_related("account")
        .order_by("expires_at", "pk")[:NOTICES_A_SWEEP]
    )
    grants = list(expiring)
    balances: dict[int, Decimal] = dict(
        CreditEntry.objects.filter(grant__in=grants)
        .order_by()
        .values_list("grant")
        .annotate(balance=Sum("amount"))
    )
    return [_credit_notice(grant, balances[grant.pk]) for grant in grants]


def _credit_notice(grant: CreditGrant, balance: Decimal) -> Notice:
    if grant.expires_at is None:
        raise ValueError(f"Credit {grant.pk} does not expire.")
    account = grant.account
    zone = ZoneInfo(account.time_zone)
    left = str(Money(balance, account.currency))
    day = day_text(grant.expires_at.astimezone(zone).date())
    return Notice(
        account=account,
        kind=MailMessage.Kind.CREDIT_EXPIRING,
        about=str(grant.pk),
        content=Content(
            template="credit_expiring",
            subject=f"Credit of {left} expires on {day}",
            account_name=account.name,
            facts=[
                ("Credit", _CREDIT_NAMES[CreditKind(grant.kind)]),
                ("Left", left),
                ("Expires", moment_text(grant.expires_at, zone)),
            ],
            says={"balance": left, "day": day},
        ),
    )


def _due(invoice: Invoice) -> Money:
    return Money(invoice.amount_due, invoice.currency)


def about_invoice(
    invoice: Invoice,
    *,
    template: str,
    subject: str,
    due: Money | None = None,
    more: Sequence[tuple[str, str]] = (),
    page: tuple[str, str] = ("", ""),
) -> Content:
    """Return what an e-mail about an invoice is made from, with `more` facts after its own.

    `due` is what is still to be paid, where that is not what the invoice asks for.
    """
    amount = str(_due(invoice) if due is None else due)
    zone = ZoneInfo(invoice.account.time_zone)
    terms = [f"Due by {day_text(invoice.due_on)}"] if invoice.due_on else []
    if invoice.payment_terms:
        terms.append(invoice.payment_terms)
    facts = [
        ("Invoice", str(invoice.number)),
        ("Period", period_text(invoice.period, zone)),
        ("Amount due", amount),
        ("Terms", ". ".join(terms)),
        *more,
    ]
    path = reverse("invoice", args=(invoice.pk,))
    if settings.PUBLIC_URL and not page[1]:
        page = ("See the invoice", f"{settings.PUBLIC_URL}/{PATH}/{invoice.pk}")
    return Content(
        template=template,
        subject=subject,
        account_name=invoice.account.name,
        facts=[fact for fact in facts if fact[1]],
        link=f"{settings.PUBLIC_URL}{path}" if settings.PUBLIC_URL else "",
        page=page,
        says={
            "number": str(invoice.number),
            "amount_due": amount,
            "is_paid": invoice.status == Invoice.Status.PAID,
        },
    )
