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
    """List a difference, or that it is still there. Safe to repeat."""
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
