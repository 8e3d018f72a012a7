"""Makes drafts final, many accounts at once, and opens the periods after theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

import metering.queries
import metering.services
from billing.copying import update_rows
from billing.facts import AccountPeriod, facts_of
from billing.models import Account, Invoice
from billing.rating import BY_DESIGN, Rating
from billing.services.conserving import Issue, SomeFailedError
from billing.services.credits import (
    expire_credits_of,
    grant_period_credits_of,
    revoke_unearned_credits_of,
)
from billing.services.issuing import issue_invoices
from billing.services.lifecycle import Because
from billing.services.safety import SafetyBoundError, past_highest, refuse_out_of_bounds
from billing.services.statements import discard_drafts, has_lines, note_unpriced_of
from billing.statement import Statement, state_period
from billing.totals import NegativeTotalError
from billing.usage_evidence import Evidence, UsageNotConservedError, read_evidence
from metering.period import Period


class InvoiceNotReadyError(Exception):
    """The invoice cannot be finalised yet; the message says what it waits for."""


class UsageUnpricedError(Exception):
    """Usage that should be charged has no price, by a mistake of the price book."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A draft of an account's open period. The account's row is locked."""

    account: Account
    draft: Invoice

    @property
    def period(self) -> Period:
        """The period that ends."""
        return self.draft.period


@dataclass(slots=True)
class Outcome:
    """What became of some drafts: each is in one of these.

    Where one has failed, the caller rolls back: its usage is frozen, and its credits are granted.
    """

    final: list[Invoice] = field(default_factory=list)
    # Closed without an invoice: there was nothing to ask for.
    empty: list[Invoice] = field(default_factory=list)
    waiting: list[tuple[Invoice, InvoiceNotReadyError]] = field(default_factory=list)
    failed: list[tuple[UUID, Exception]] = field(default_factory=list)

    def refuse_failed(self) -> None:
        """Raise SomeFailedError if an account has failed."""
        if self.failed:
            raise SomeFailedError(self.failed)


def close_periods(closings: Sequence[Closing], *, because: Because, now: datetime) -> Outcome:
    """Finalise each draft that is ready, and open the period after it.

    In a fixed number of queries, inside the caller's transaction. In this order: usage is frozen,
    the period's credits are granted and what was not earned of them taken back, the figures made
    and checked, the rows written, credit used, the next period opened, and last the numbers given.
    """
    outcome = Outcome()
    ready = _ready(closings, outcome, now) if closings else []
    if not ready:
        return outcome
    # From here on late readings of the periods go elsewhere, so the figures cannot move.
    metering.services.freeze_accounts({c.account.pk: c.period.end for c in ready})
    accounts = [closing.account for closing in ready]
    grant_period_credits_of(accounts, now=now)
    revoke_unearned_credits_of(accounts, now=now)
    issues = _state(ready, outcome, now=now)
    due = [issue for issue in issues if has_lines(issue.statement)]
    empty = [issue for issue in issues if not has_lines(issue.statement)]
    discard_drafts([issue.invoice for issue in empty])
    issue_invoices(
        due,
        because=because,
        now=now,
        before_numbering=partial(_open_next_periods, issues, now=now),
    )
    outcome.final = [issue.invoice for issue in due]
    outcome.empty = [issue.invoice for issue in empty]
    return outcome


def refuse_unpriced(rating: Rating) -> None:
    """Raise UsageUnpricedError when usage has no price that is not meant to be free."""
    if mistakes := [entry for entry in rating.unpriced if entry.reason not in BY_DESIGN]:
        raise UsageUnpricedError(
            "; ".join(f"{m.meter} from {m.period.start}: {m.reason}" for m in mistakes)
        )


def _ready(closings: Sequence[Closing], outcome: Outcome, now: datetime) -> list[Closing]:
    """Return the drafts that can be finalised; add the others to `outcome` with the reason."""
    # An account may have a second draft, of the period after.
    until = {
        closing.account.pk: closing.draft.finalise_after
        for closing in sorted(closings, key=lambda closing: closing.draft.finalise_after)
    }
    behind = metering.queries.streams_behind_of(until)
    ready = []
    for closing in closings:
        account, draft = closing.account, closing.draft
        if now < draft.finalise_after:
            reason = f"the grace for late readings, to {draft.finalise_after}"
        elif draft.period != account.open_period:
            reason = f"the period from {account.open_period_start}, still open"
        elif hosts := behind.get(account.pk):
            reason = f"readings of {', '.join(hosts)}"
        else:
            ready.append(closing)
            continue
        outcome.waiting.append((draft, InvoiceNotReadyError(reason)))
    return ready


def _state(closings: Sequence[Closing], outcome: Outcome, *, now: datetime) -> list[Issue]:
    """Return what each period comes to, with its evidence; add what is wrong to `outcome`."""
    stated: list[tuple[Closing, Statement]] = []
    found = facts_of([AccountPeriod(c.account, c.period) for c in closings])
    for closing, facts in zip(closings, found, strict=True):
        if isinstance(facts, Exception):
            outcome.failed.append((closing.account.pk, facts))
            continue
        try:
            stated.append((closing, state_period(facts)))
        except (ValueError, ArithmeticError, NegativeTotalError) as error:
            outcome.failed.append((closing.account.pk, error))
    note_unpriced_of([(c.account, c.period, s.rating) for c, s in stated], now=now)
    evidence = read_evidence([(c.account.pk, c.period, s.rating) for c, s in stated])
    highest = past_highest([closing.account.pk for closing, _ in stated])
    issues = []
    for (closing, statement), of_account in zip(stated, evidence, strict=True):
        try:
            refuse_unpriced(statement.rating)
            refuse_out_of_bounds(closing.draft, statement, highest.get(closing.account.pk))
            issues.append(Issue(closing.account, closing.draft, statement, _checked(of_account)))
        except (UsageUnpricedError, UsageNotConservedError, SafetyBoundError) as error:
            outcome.failed.append((closing.account.pk, error))
    return issues


def _checked(evidence: Evidence | UsageNotConservedError) -> Evidence:
    if isinstance(evidence, UsageNotConservedError):
        raise evidence
    return evidence


def _open_next_periods(issues: Sequence[Issue], *, now: datetime) -> None:
    """Open each account's next period, in its new cycle if one takes over there."""
    accounts = [issue.account for issue in issues]
    for issue in issues:
        account, closed_until = issue.account, issue.account.open_period_end
        following = issue.statement.facts.schedule.starting(closed_until)
        account.open_period_start, account.open_period_end = following.start, following.end
        if account.cycle_changes_at and account.cycle_changes_at <= closed_until:
            _take_next_cycle(account)
    update_rows(accounts, ["open_period_start", "open_period_end"])
    expire_credits_of(accounts, now=now)


def _take_next_cycle(account: Account) -> None:
    if account.next_cycle is None:
        return
    if account.next_time_zone != account.time_zone:
        metering.services.change_time_zone(
            account.pk, time_zone=account.next_time_zone, now=account.open_period_start
        )
    account.time_zone, account.anchor_day = account.next_time_zone, account.next_cycle.anchor_day
    account.next_time_zone, account.next_anchor_day = "", None
    account.cycle_changes_at = None
    account.save(
        update_fields=[
            "time_zone",
            "anchor_day",
            "next_time_zone",
            "next_anchor_day",
            "cycle_changes_at",
        ]
    )
