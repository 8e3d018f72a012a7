"""Money of a payment that is to go back: proposed, decided on, and marked as done by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from billing.credits import CreditKind
from billing.money import Money
from billing.services import (
    ByHand,
    CreditRefusedError,
    Gift,
    grant_credit,
    lock_account,
    take_prepaid,
)
from payments.models import Payment, Refund
from payments.services.credit_left import note_credit_left
from payments.services.refundable import (
    Refundable,
    is_disputed,
    is_too_much,
    refundable,
    refunds_counting,
)

MOST_CHARACTERS = 100
"""Of a reference."""
Status = Refund.Status


class RefundRefusedError(ValueError):
    """Money cannot go back like this; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A refund as its author asks for it, in the payment's currency.

    Under `reference` a payment is refunded once. `credit` is how much prepaid credit it takes
    back; None: what the payment became credit of, first. `needs_approval`: a second person decides,
    however little it is.
    """

    amount: Decimal
    reason: str
    reference: str
    credit: Decimal | None = None
    user_id: int | None = None
    needs_approval: bool = False


def propose_refund(payment_id: int, proposal: Proposal, *, now: datetime) -> Refund:
    """Ask for money of a payment to go back: it does, unless a second person has to approve it.

    That is so above REFUND_APPROVAL_THRESHOLD, what was refunded of the payment without one
    counted too. Safe to repeat under the reference. Raises RefundRefusedError,
    Payment.DoesNotExist.
    """
    reference = proposal.reference.strip()
    if not reference or len(reference) > MOST_CHARACTERS or not proposal.reason.strip():
        raise RefundRefusedError(
            f"Give a reason, and a reference of yours of up to {MOST_CHARACTERS} characters."
        )
    with _locked(payment_id) as payment:
        if made := payment.refunds.filter(reference=reference).first():
            if made.amount == proposal.amount:
                return made
            raise RefundRefusedError(
                f"reference {reference!r} is a refund of {made.amount} already. Use another for "
                "another refund."
            )
        amount, credit = _checked(payment, proposal)
        refund = Refund.objects.create(
            payment=payment,
            amount=amount.amount,
            credit_taken=credit.amount,
            status=Status.PROPOSED,
            reason=proposal.reason.strip()[:200],
            reference=reference,
            author_id=proposal.user_id,
            proposed_at=now,
            try_at=now,
        )
        if not (proposal.needs_approval or _needs_approval(refund)):
            _let_go(refund, decided_by_id=None, now=now)
    return refund


def approve_refund(refund_id: UUID, *, user_id: int, now: datetime) -> Refund:
    """Let a proposed refund happen. Safe to repeat.

    Raises RefundRefusedError, also when the user is its author, Refund.DoesNotExist.
    """
    with _locked_refund(refund_id) as refund:
        if refund.status == Status.PROPOSED:
            if refund.author_id == user_id:
                raise RefundRefusedError("Its author cannot approve it. Ask a second person.")
            if is_disputed(refund.payment) or is_too_much(refund.payment):
                raise RefundRefusedError("Its money is gone meanwhile. Reject it.")
            _let_go(refund, decided_by_id=user_id, now=now)
        elif refund.status == Status.REJECTED:
            raise RefundRefusedError("It was rejected. Propose another.")
    return refund


def reject_refund(refund_id: UUID, *, user_id: int | None, now: datetime) -> Refund:
    """Decide that a refund does not happen; its author may, too. Safe to repeat.

    One of an offline payment may be rejected until it is marked as done; then the credit that it
    took is given back. Raises RefundRefusedError, Refund.DoesNotExist.
    """
    with _locked_refund(refund_id) as refund:
        if refund.status == Status.REJECTED:
            return refund
        is_offline = refund.payment.method == Payment.Method.OFFLINE
        if refund.status == Status.APPROVED and is_offline:
            give_credit_back(refund, now=now)
        elif refund.status != Status.PROPOSED:
            raise RefundRefusedError(f"It is {refund.status} already.")
        refund.status, refund.ended_at = Status.REJECTED, now
        refund.decided_by_id, refund.decided_at = user_id, now
        refund.save(update_fields=["status", "ended_at", "decided_by", "decided_at"])
    return refund


def mark_refund_done(refund_id: UUID, *, bank_reference: str, now: datetime) -> Refund:
    """Note that money of an offline payment went back, under the bank's reference. Repeatable.

    Raises RefundRefusedError, Refund.DoesNotExist.
    """
    reference = bank_reference.strip()
    if not reference or len(reference) > MOST_CHARACTERS:
        raise RefundRefusedError(
            f"Give the bank's reference, of up to {MOST_CHARACTERS} characters."
        )
    with _locked_refund(refund_id) as refund:
        if refund.payment.method != Payment.Method.OFFLINE:
            raise RefundRefusedError("It goes back by the provider, which says when it is done.")
        if refund.status == Status.SUCCEEDED and refund.bank_reference == reference:
            return refund
        if refund.status != Status.APPROVED:
            raise RefundRefusedError(f"It is {refund.status}. Only an approved one can be done.")
        refund.status, refund.ended_at, refund.bank_reference = Status.SUCCEEDED, now, reference
        refund.save(update_fields=["status", "ended_at", "bank_reference"])
    return refund


def take_credit_after(
    refund_id: UUID, credit: Decimal, *, user_id: int | None, now: datetime
) -> Refund:
    """Take the credit back of a refund that was made at the provider, where none was taken.

    Once for a refund; with another amount it is refused. Raises RefundRefusedError,
    Refund.DoesNotExist.
    """
    with _locked_refund(refund_id) as refund:
        if refund.credit_taken and refund.credit_taken == credit:
            return refund
        if refund.reference or refund.credit_taken or refund.status not in _MADE_THERE:
            raise RefundRefusedError("Its credit is settled already, or it took no money.")
        if not 0 < credit <= refund.amount:
            raise RefundRefusedError(f"Take an amount above 0, up to {refund.amount}.")
        refund.credit_taken = credit
        take_credit(refund, user_id=user_id, now=now)
        refund.save(update_fields=["credit_taken"])
        note_credit_left(refund.payment, now=now)
    return refund


_MADE_THERE = (Status.PENDING, Status.SUCCEEDED)


def take_credit(refund: Refund, *, user_id: int | None, now: datetime) -> None:
    """Take the prepaid credit back that goes with a refund. The caller has locked the account."""
    if not refund.credit_taken:
        return
    by = ByHand(reason=refund.reason, reference=f"refund:{refund.pk}", user_id=user_id)
    try:
        take_prepaid(refund.payment.account_id, refund.credit_taken, by=by, now=now)
    except CreditRefusedError as error:
        raise RefundRefusedError(f"It takes credit back, and cannot: {error}") from error


def give_credit_back(refund: Refund, *, now: datetime) -> None:
    """Give back what a refund took that did not happen. The caller has locked the account."""
    if not refund.credit_taken:
        return
    gift = Gift(
        kind=CreditKind.PREPAID,
        amount=refund.credit_taken,
        reason=f"Refund that did not happen: {refund.reason}"[:200],
        reference=f"refund:{refund.pk}:back",
    )
    grant_credit(refund.payment.account_id, gift, now=now)


def _checked(payment: Payment, proposal: Proposal) -> tuple[Money, Money]:
    """Return the amount and the credit that a refund takes back, both whole cents."""
    if is_disputed(payment):
        raise RefundRefusedError("The customer's bank has the money: the payment is disputed.")
    left = refundable(payment)
    amount = _whole_cents(proposal.amount, payment.currency)
    if not 0 < amount.amount <= left.amount.amount:
        raise RefundRefusedError(f"amount is {amount}. Use one above 0, up to {left.amount}.")
    if proposal.credit is None:
        return amount, left.usual_credit(amount)
    return amount, _checked_credit(left, amount, _whole_cents(proposal.credit, payment.currency))


def _checked_credit(left: Refundable, amount: Money, credit: Money) -> Money:
    least = left.least_credit(amount)
    if not least.amount <= credit.amount <= amount.amount:
        raise RefundRefusedError(
            f"credit is {credit}. Use {least} or more, up to {amount}: {left.without_credit} of "
            "the payment can go back without."
        )
    return credit


def _whole_cents(amount: Decimal, currency: str) -> Money:
    if amount.is_finite():
        named = Money(amount, currency)
        if named.times(Decimal(1)) == named:
            return named
    raise RefundRefusedError(f"amount is {amount}. Use whole cents.")


def _needs_approval(refund: Refund) -> bool:
    """Return whether a second person has to approve it: many small ones are a large one."""
    threshold: int = settings.REFUND_APPROVAL_THRESHOLD
    others = ~Q(pk=refund.pk)
    alone = (
        refunds_counting(refund.payment)
        .filter(decided_by__isnull=True)
        .exclude(Q(reference="") | (others & Q(status=Status.PROPOSED)))
    )
    total: Decimal = sum(alone.values_list("amount", flat=True), start=Decimal(0))
    return total > threshold


def _let_go(refund: Refund, *, decided_by_id: int | None, now: datetime) -> None:
    take_credit(refund, user_id=refund.author_id, now=now)
    refund.status, refund.try_at = Status.APPROVED, now
    refund.decided_by_id = decided_by_id
    refund.decided_at = now if decided_by_id else None
    refund.save(update_fields=["status", "try_at", "decided_by", "decided_at"])


@contextmanager
def _locked(payment_id: int) -> Iterator[Payment]:
    account_id = Payment.objects.values_list("account_id", flat=True).get(pk=payment_id)
    with transaction.atomic():
        lock_account(account_id)
        yield Payment.objects.get(pk=payment_id)


@contextmanager
def _locked_refund(refund_id: UUID) -> Iterator[Refund]:
    payment_id = Refund.objects.values_list("payment_id", flat=True).get(pk=refund_id)
    with _locked(payment_id):
        yield Refund.objects.select_related("payment").get(pk=refund_id)
