"""Reads what the lines of invoices rest on, and refuses lines that rest on something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from billing.conservation import NotConservedError
from billing.rating import Rating
from metering.evidence import LifeEvidence, evidence_of_spans
from metering.meters import Meter
from metering.period import Period
from metering.totals import usage_of_spans

Evidence = Mapping[tuple[Period, Meter], Sequence[LifeEvidence]]
"""What each life used, by a usage line's own span and meter."""


class UsageNotConservedError(NotConservedError):
    """What the lines charge for and what was measured differ; nothing may be invoiced."""


def read_evidence(
    rated: Sequence[tuple[UUID, Period, Rating]],
) -> list[Evidence | UsageNotConservedError]:
    """Return, in their order, what the lines of each account's period rest on.

    In a fixed number of queries. The error in place of it, where what was rated is not what was
    measured: of the whole period, read at once and not span by span, and of each line.
    """
    spans = sorted(
        {(account_id, line.period) for account_id, _, rating in rated for line in rating.lines}
    )
    found = dict(zip(spans, evidence_of_spans(spans), strict=True))
    measured = usage_of_spans([(account_id, period) for account_id, period, _ in rated])
    return [
        _checked(account_id, period, rating, found, used)
        for (account_id, period, rating), used in zip(rated, measured, strict=True)
    ]


def _checked(
    account_id: UUID,
    period: Period,
    rating: Rating,
    found: Mapping[tuple[UUID, Period], Mapping[Meter, Sequence[LifeEvidence]]],
    measured: Mapping[Meter, int],
) -> Evidence | UsageNotConservedError:
    if rating.usage != measured:
        return UsageNotConservedError(f"Rated {rating.usage}, measured {measured} in {period}.")
    evidence = {}
    for line in rating.lines:
        lives = found[account_id, line.period].get(line.meter, ())
        shown = sum(life.quantity for life in lives)
        if shown != line.quantity:
            return UsageNotConservedError(
                f"{line.meter} in {line.period}: rated {line.quantity}, evidence of {shown}."
            )
        evidence[line.period, line.meter] = lives
    return evidence
