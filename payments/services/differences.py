"""What the provider and we do not say alike: listed until it is gone, none hidden."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments.models import Difference


@dataclass(frozen=True, slots=True)
class Found:
    """A difference as it was found: what it is about, what each side says, what to do."""

    kind: Difference.Kind
    subject: str
    account_id: UUID | None
    ours: str
    theirs: str
    proposed_action: str


def note_difference(found: Found, *, now: datetime) -> Difference:
    """List a difference, or that it is still there. Safe to repeat.

    One that a person settled stays settled while both sides say what they said then.
    """
    last = Difference.objects.filter(kind=found.kind, subject=found.subject).first()
    if last and last.settled_by_id and (last.ours, last.theirs) == (found.ours, found.theirs):
        Difference.objects.filter(pk=last.pk).update(last_seen_at=now)
        return last
    difference, _ = Difference.objects.update_or_create(
        kind=found.kind,
        subject=found.subject,
        settled_at__isnull=True,
        defaults={
            "account_id": found.account_id,
            "ours": found.ours,
            "theirs": found.theirs,
            "proposed_action": found.proposed_action,
            "last_seen_at": now,
        },
        create_defaults={
            "account_id": found.account_id,
            "ours": found.ours,
            "theirs": found.theirs,
            "proposed_action": found.proposed_action,
            "found_at": now,
            "last_seen_at": now,
        },
    )
    return difference


def settle_gone(kind: Difference.Kind, subject: str, *, reason: str, now: datetime) -> bool:
    """Settle a difference that is there no more; return whether it was open. Repeatable."""
    is_open = Difference.objects.filter(kind=kind, subject=subject, settled_at__isnull=True)
    return bool(is_open.update(settled_at=now, settled_reason=reason[:200]))


def settle_difference(
    difference_id: int, *, reason: str, user_id: int, now: datetime
) -> Difference:
    """Settle a difference at a person's word; return it. Safe to repeat.

    Raises ValueError without a reason, Difference.DoesNotExist.
    """
    if not reason.strip():
        raise ValueError("Say in reason how it was settled.")
    Difference.objects.filter(pk=difference_id, settled_at__isnull=True).update(
        settled_at=now, settled_by=user_id, settled_reason=reason.strip()[:200]
    )
    return Difference.objects.get(pk=difference_id)
