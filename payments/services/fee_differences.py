"""Fees that the provider asked for twice, or not at all: listed for a person to put right."""

from __future__ import annotations

from datetime import datetime, timedelta

from billing.mirrored_fees import FeeDifferenceKind, fee_differences
from payments.models import Difference, FeeSubscription
from payments.services.differences import Found, note_difference

MIRRORED_WITHIN = timedelta(hours=6)
"""So long a fee may take from being charged to being mirrored."""
_ACTIONS = {
    FeeDifferenceKind.NOT_CHARGED: "Invoice the fee at the provider, or let it go.",
    FeeDifferenceKind.CHARGED_TWICE: "Give one of the two back, by a refund or a credit note.",
}


def note_fee_differences(fees: FeeSubscription, *, now: datetime) -> None:
    """List what is wrong about an account's fees. Each is listed once, also once it is settled."""
    for found in fee_differences(fees.account_id, now=now - MIRRORED_WITHIN):
        if found.kind not in _ACTIONS:
            # What is unused is given back by a credit note.
            continue
        subject = f"{fees.account_id}:{found.kind}:{found.period.start:%Y-%m-%dT%H:%M:%S}"
        kind = Difference.Kind.SUBSCRIPTION_DIFFERS
        if Difference.objects.filter(kind=kind, subject=subject).exists():
            continue
        note_difference(
            Found(
                kind=kind,
                subject=subject,
                account_id=fees.account_id,
                ours=f"One fee is due from {found.period.start} on",
                theirs=f"{found.kind.value.replace('_', ' ')} until {found.period.end}",
                proposed_action=_ACTIONS[found.kind],
            ),
            now=now,
        )
