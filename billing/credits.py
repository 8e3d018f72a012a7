from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing.money import Money
from metering.period import Period


class CreditKind(StrEnum):
    """Where a credit comes from, which says what it may pay."""

    MONTHLY = "monthly"
    PROMOTIONAL = "promotional"
    PREPAID = "prepaid"


USAGE_CREDITS = (CreditKind.MONTHLY, CreditKind.PROMOTIONAL)
"""The kinds that pay usage only, in the order in which they are used."""
RESERVED_REFERENCES = ("invoice:", "top-up:", "correction:", "payment:", "overpaid:", "refund:")
"""How the references begin that the system itself gives to credit."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What is left of one grant. `credit_id` is None while it has not been written yet."""

    credit_id: int | None
    kind: CreditKind
    balance: Money
    effective_at: datetime
    # None: it never expires.
    expires_at: datetime | None
    # The lower is used first.
    priority: int = 0

    def is_eligible(self, period: Period) -> bool:
        """Return whether it may pay for `period`: it is in force in some part of it."""
        return self.effective_at < period.end and (
            self.expires_at is None or self.expires_at > period.start
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """So much of one credit is used."""

    credit_id: int | None
    kind: CreditKind
    amount: Money


def usage_credit_for(credits_held: Iterable[Credit], period: Period) -> list[Credit]:
    """Return the credits that may pay the usage of `period`, in the order they are used."""
    return [
        credit
        for kind in USAGE_CREDITS
        for credit in _in_order(credits_held, kind)
        if credit.is_eligible(period)
    ]


def prepaid_credit_for(credits_held: Iterable[Credit], period: Period) -> list[Credit]:
    """Return the prepaid credits that may pay what is left of `period`, in order."""
    return [c for c in _in_order(credits_held, CreditKind.PREPAID) if c.is_eligible(period)]


def draw(credits_in_order: Iterable[Credit], amount: Money) -> tuple[Draw, ...]:
    """Return what each credit gives towards `amount`, in order; together never more than it.

    A credit gives no more than its balance, so no balance falls below zero.
    """
    left = amount
    draws: list[Draw] = []
    for credit in credits_in_order:
        taken = min(left, credit.balance)
        if taken.amount > 0:
            draws.append(Draw(credit.credit_id, credit.kind, taken))
            left -= taken
    return tuple(draws)


def total_of(draws: Iterable[Draw], currency: str) -> Money:
    """Return what the draws come to."""
    return Money.total((drawn.amount for drawn in draws), currency)


def unearned_part(*, granted: Money, earned: Money, balance: Money) -> Money:
    """Return what of a grant was given for time that was not covered; no more than is left."""
    return max(Money.zero(balance.currency), min(balance, granted - earned))


def balance_of(credits_held: Iterable[Credit], currency: str) -> Money:
    """Return what the credits hold together."""
    return Money.total((credit.balance for credit in credits_held), currency)


def _in_order(credits_held: Iterable[Credit], kind: CreditKind) -> list[Credit]:
    """Return one kind by priority, then soonest expiry, none last, then oldest."""
    return sorted(
        (credit for credit in credits_held if credit.kind is kind),
        key=lambda credit: (
            credit.priority,
            credit.expires_at is None,
            credit.expires_at or credit.effective_at,
            credit.effective_at,
            credit.credit_id or 0,
        ),
    )
