"""The states of an invoice, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class InvoiceStatus(StrEnum):
    """Where an invoice stands. The value names it in tables and the API."""

    DRAFT = "draft"
    PENDING = "pending"
    PAID = "paid"
    PAYMENT_FAILED = "payment_failed"
    PENDING_RETRY = "pending_retry"
    UNCOLLECTIBLE = "uncollectible"
    VOID = "void"


_S = InvoiceStatus
TRANSITIONS: Mapping[InvoiceStatus, frozenset[InvoiceStatus]] = {
    _S.DRAFT: frozenset({_S.PENDING, _S.VOID}),
    _S.PENDING: frozenset({_S.PAID, _S.PAYMENT_FAILED, _S.UNCOLLECTIBLE, _S.VOID}),
    _S.PAYMENT_FAILED: frozenset({_S.PENDING_RETRY, _S.PAID, _S.UNCOLLECTIBLE, _S.VOID}),
    _S.PENDING_RETRY: frozenset({_S.PAID, _S.PAYMENT_FAILED}),
    _S.UNCOLLECTIBLE: frozenset({_S.PAID}),
    _S.PAID: frozenset(),
    _S.VOID: frozenset(),
}
"""What may follow each state. Refunds, disputes and partial payments are no states."""

NOT_FINAL = frozenset({_S.DRAFT, _S.VOID})
"""An invoice in one of these asks for nothing."""


class TransitionRefusedError(Exception):
    """An invoice cannot go from the state it is in to the one that was asked for."""


def refuse_transition(current: InvoiceStatus, wanted: InvoiceStatus) -> None:
    """Raise TransitionRefusedError unless `wanted` may follow `current`."""
    allowed = TRANSITIONS[current]
    if wanted not in allowed:
        following = " or ".join(sorted(status.value for status in allowed)) or "nothing"
        raise TransitionRefusedError(f"After {current} comes {following}, not {wanted}.")
