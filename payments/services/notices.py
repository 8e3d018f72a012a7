"""E-mails about payments: written with what they tell of, in its transaction, so each once."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import Q

from billing.letters import Content, day_text, moment_text
from billing.models import Account, Invoice, MailMessage
from billing.services.messages import Notice, about_invoice, write_messages
from payments.dunning_queries import next_step_at, payment_page
from payments.dunning_schedule import RETRY, SUSPEND
from payments.failures import failure_words
from payments.models import DunningCase, PaymentAttempt, PaymentMethod, PlatformRequest
from payments.owed import owed

CARDS_A_SWEEP = 500
MOST_INVOICES = 10
"""Named in one e-mail."""
Kind = MailMessage.Kind


def tell_of_failures(
    invoices: Sequence[Invoice], attempt: PaymentAttempt, *, now: datetime
) -> None:
    """Tell that an attempt failed, for each of its invoices: why, and what can be done.

    The caller has written down the failures, and locked the account. Safe to repeat.
    """
    needs_customer = attempt.status == PaymentAttempt.Status.ACTION_REQUIRED
    write_messages(
        [_failure(invoice, attempt, needs_customer=needs_customer) for invoice in invoices],
        now=now,
    )


def tell_of_paid(cases: Sequence[DunningCase], *, now: datetime) -> None:
    """Tell that invoices whose payment had failed are paid. Safe to repeat."""
    write_messages([_paid(case) for case in cases], now=now)


def tell_of_suspension(request: PlatformRequest, *, now: datetime) -> None:
    """Tell that the account's sandboxes are to be stopped, or may run again. Safe to repeat."""
    is_stop = request.action == PlatformRequest.Action.STOP
    account = request.account
    invoices = _unpaid(account) if is_stop else []
    content = Content(
        template="account_suspended" if is_stop else "account_resumed",
        subject="Your account is suspended" if is_stop else "Your account is active again",
        account_name=account.name,
        facts=[(f"Invoice {invoice}", str(owed(invoice))) for invoice in invoices],
        page=("Pay here", payment_page(invoices[0])) if invoices else ("", ""),
    )
    kind = Kind.ACCOUNT_SUSPENDED if is_stop else Kind.ACCOUNT_RESUMED
    write_messages([Notice(account, kind, str(request.pk), content)], now=now)


def tell_of_write_off(case: DunningCase, *, now: datetime) -> None:
    """Tell that an invoice is not collected any more, and is owed still. Safe to repeat."""
    invoice = case.invoice
    content = about_invoice(
        invoice,
        template="invoice_written_off",
        subject=f"Invoice {invoice.number} was not paid: {owed(invoice)}",
        due=owed(invoice),
        page=("Pay it here", payment_page(invoice)),
    )
    notice = Notice(invoice.account, Kind.INVOICE_WRITTEN_OFF, str(case.pk), content)
    write_messages([notice], now=now)


def tell_of_expiring_cards(now: datetime) -> int:
    """Tell of default cards that expire within CARD_EXPIRY_NOTICE_DAYS; return how many.

    Once a card and expiry. Safe to repeat.
    """
    last = now + timedelta(days=settings.CARD_EXPIRY_NOTICE_DAYS)
    cards = {
        f"{card.pk}:{card.expires_year}-{card.expires_month}": card
        for card in PaymentMethod.objects.filter(
            _expires_between(now, last), is_default=True
        ).select_related("account")
        if now < _expiry(card) <= last
    }
    told = MailMessage.objects.filter(kind=Kind.CARD_EXPIRING, subject_key__in=cards)
    known = set(told.values_list("subject_key", flat=True))
    new = [(key, card) for key, card in cards.items() if key not in known]
    return write_messages([_expiring(key, card) for key, card in new[:CARDS_A_SWEEP]], now=now)


def _failure(invoice: Invoice, attempt: PaymentAttempt, *, needs_customer: bool) -> Notice:
    zone = ZoneInfo(invoice.account.time_zone)
    retried, suspends = next_step_at(invoice, RETRY), next_step_at(invoice, SUSPEND)
    due = owed(invoice)
    more = [("Reason", failure_words(attempt.failure_code, attempt.decline_code))]
    if retried and not needs_customer:
        more.append(("Tried again", moment_text(retried, zone)))
    if suspends:
        more.append(("Sandboxes are stopped", moment_text(suspends, zone)))
    what = "Confirm your payment" if needs_customer else "Payment failed"
    change = invoice.transitions.filter(to_status=Invoice.Status.PAYMENT_FAILED).last()
    return Notice(
        account=invoice.account,
        kind=Kind.CONFIRM_PAYMENT if needs_customer else Kind.PAYMENT_FAILED,
        about=str(change.pk if change else invoice.pk),
        content=about_invoice(
            invoice,
            template="confirm_payment" if needs_customer else "payment_failed",
            subject=f"{what}: invoice {invoice.number}, {due}",
            due=due,
            more=more,
            page=("Confirm it here" if needs_customer else "Pay here", payment_page(invoice)),
        ),
    )


def _paid(case: DunningCase) -> Notice:
    invoice = case.invoice
    content = Content(
        template="payment_received",
        subject=f"Invoice {invoice.number} is paid",
        account_name=invoice.account.name,
        facts=[("Invoice", str(invoice.number))],
        says={"number": str(invoice.number)},
    )
    return Notice(invoice.account, Kind.PAYMENT_RECEIVED, str(case.pk), content)


def _expiring(key: str, card: PaymentMethod) -> Notice:
    name = f"{card.brand.capitalize() or 'Card'} …{card.last4}"
    day = day_text((_expiry(card) - timedelta(days=1)).date())
    content = Content(
        template="card_expiring",
        subject=f"Your card {name} expires on {day}",
        account_name=card.account.name,
        facts=[("Card", name), ("Expires", day)],
        page=("Add another one here", settings.PAYMENTS_RETURN_URL),
        says={"card": name, "day": day},
    )
    return Notice(card.account, Kind.CARD_EXPIRING, key, content)


def _unpaid(account: Account) -> list[Invoice]:
    cases = DunningCase.objects.filter(invoice__account=account, closed_at__isnull=True)
    return [case.invoice for case in cases.select_related("invoice")[:MOST_INVOICES]]


def _expires_between(start: datetime, end: datetime) -> Q:
    """Return the condition of cards whose last month has one of the span's days."""
    months = Q(pk__in=[])
    year, month = start.year, start.month
    while (year, month) <= (end.year, end.month):
        months |= Q(expires_year=year, expires_month=month)
        year, month = year + month // 12, month % 12 + 1
    return months


def _expiry(card: PaymentMethod) -> datetime:
    """Return the moment from which the card cannot be charged: the end of its month."""
    if card.expires_year is None or card.expires_month is None:
        raise ValueError(f"Payment method {card.pk} does not expire.")
    days = calendar.monthrange(card.expires_year, card.expires_month)[1]
    return datetime(card.expires_year, card.expires_month, 1, tzinfo=UTC) + timedelta(days=days)
