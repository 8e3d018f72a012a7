"""Credit for many accounts out of one file: shown first, then granted as it was shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from billing.bulk_credits import AskedGrant, Fault, GrantRow, read_grants
from billing.caching import forget_of
from billing.copying import copy_in
from billing.models import Account, CreditEntry, CreditGrant
from billing.money import Money
from billing.own_facts import annotated
from billing.sheets import sha256_of

_GRANTED = (CreditEntry.Kind.GRANT, CreditEntry.Kind.REVOKE)


class Outcome(StrEnum):
    """What becomes of a row."""

    NEW = "new"
    GRANTED = "granted already"
    REFUSED = "refused"


class BulkRefusedError(ValueError):
    """The file cannot be granted; `plan` says why, row by row."""

    def __init__(self, message: str, plan: GrantPlan) -> None:
        super().__init__(message)
        self.plan = plan


@dataclass(frozen=True, slots=True)
class PlannedGrant:
    """A row as it will be. Of a refused one account and amount are None where they are unknown."""

    number: int
    cells: Mapping[str, str]
    outcome: Outcome
    account: Account | None
    amount: Money | None
    grant: AskedGrant | None
    faults: Sequence[Fault]


@dataclass(frozen=True, slots=True)
class PlannedTotal:
    """What the rows of one currency come to."""

    currency: str
    new_count: int
    new: Money
    granted_count: int
    granted: Money


@dataclass(frozen=True, slots=True)
class GrantPlan:
    """What granting a file would do, as of a moment. `sha256` is the file's."""

    sha256: str
    rows: Sequence[PlannedGrant]

    @property
    def digest(self) -> str:
        """What is shown of every row, as one hash: another plan has another."""
        shown = hashlib.sha256(self.sha256.encode())
        for row in self.rows:
            account = (str(row.account.pk), row.account.name) if row.account else None
            faults = [(fault.column, fault.message) for fault in row.faults]
            line = (row.number, row.outcome.value, account, str(row.amount), row.grant, faults)
            shown.update(repr(line).encode())
        return shown.hexdigest()

    @property
    def is_clean(self) -> bool:
        """Whether every row can be granted, or is already."""
        return not self.refused_count

    @property
    def new_count(self) -> int:
        """How many rows would be granted."""
        return self._count(Outcome.NEW)

    @property
    def granted_count(self) -> int:
        """How many rows are granted already."""
        return self._count(Outcome.GRANTED)

    @property
    def refused_count(self) -> int:
        """How many rows are refused."""
        return self._count(Outcome.REFUSED)

    def totals(self) -> list[PlannedTotal]:
        """Return what is granted and what was already, a currency a row."""
        amounts: dict[str, dict[Outcome, list[Money]]] = {}
        for row in self.rows:
            if row.amount and row.outcome is not Outcome.REFUSED:
                of_currency = amounts.setdefault(row.amount.currency, {})
                of_currency.setdefault(row.outcome, []).append(row.amount)
        totals = []
        for currency, by_outcome in sorted(amounts.items()):
            new, granted = (by_outcome.get(of, []) for of in (Outcome.NEW, Outcome.GRANTED))
            totals.append(
                PlannedTotal(
                    currency,
                    len(new),
                    Money.total(new, currency),
                    len(granted),
                    Money.total(granted, currency),
                )
            )
        return totals

    def _count(self, outcome: Outcome) -> int:
        return sum(row.outcome is outcome for row in self.rows)


def plan_grants(content: bytes, *, now: datetime) -> GrantPlan:
    """Return what granting the file's rows would do; writes nothing, in two queries.

    Raises SheetRefusedError when the file is no CSV of credits at all.
    """
    rows = read_grants(content)
    asked = {row.grant.account_id for row in rows if row.grant}
    accounts = {account.pk: account for account in Account.objects.filter(pk__in=asked)}
    found = _found(rows)
    planned = tuple(_planned(row, accounts, found, now) for row in rows)
    return GrantPlan(sha256_of(content), planned)


def grant_in_bulk(
    content: bytes, *, shown: str, now: datetime, granted_by_id: int | None = None
) -> GrantPlan:
    """Grant the file's credit, all of it or nothing, if that is still what was `shown`.

    `shown` is the digest of a plan. The grants are those that `grant_credit` would make one by
    one; safe to repeat, since a plan of what is granted already grants nothing. Raises
    SheetRefusedError, and BulkRefusedError, with the plan of now, when a row is refused or the
    plan is another.
    """
    with transaction.atomic():
        asked = {row.grant.account_id for row in read_grants(content) if row.grant}
        # In the order of their keys, so that two files at once do not wait for one another.
        locked = Account.objects.select_for_update().filter(pk__in=asked).order_by("pk")
        forget_of(locked.values_list("pk", flat=True))
        plan = plan_grants(content, now=now)
        if plan.digest != shown:
            raise BulkRefusedError(
                "Something changed since this was shown: an account, a credit of the same "
                "reference, or the time. Nothing was granted; look at it again.",
                plan,
            )
        if plan.refused_count:
            raise BulkRefusedError(
                f"{plan.refused_count:,} rows are refused. Nothing was granted; correct the file.",
                plan,
            )
        _write([row for row in plan.rows if row.outcome is Outcome.NEW], now, granted_by_id)
    return plan


def _write(rows: Iterable[PlannedGrant], now: datetime, granted_by_id: int | None) -> None:
    given = [(row.grant, row.amount) for row in rows if row.grant and row.amount]
    grants = [
        CreditGrant(
            account_id=asked.account_id,
            reference=asked.reference,
            kind=asked.kind,
            effective_at=now,
            expires_at=asked.expires_at,
            priority=asked.priority,
            reason=asked.reason,
            granted_by_id=granted_by_id,
            granted_at=now,
        )
        for asked, _ in given
    ]
    copy_in(grants)
    entries = [
        CreditEntry(
            grant=grant,
            kind=CreditEntry.Kind.GRANT,
            amount=amount.amount,
            recorded_at=now,
            recorded_by_id=granted_by_id,
        )
        for grant, (_, amount) in zip(grants, given, strict=True)
    ]
    copy_in(entries)


def _found(rows: Iterable[GrantRow]) -> dict[tuple[UUID, str], CreditGrant]:
    """Return the grants that there are under the rows' accounts and references."""
    asked = {(row.grant.account_id, row.grant.reference) for row in rows if row.grant}
    grants = CreditGrant.objects.filter(
        account__in={account_id for account_id, _ in asked},
        reference__in={reference for _, reference in asked},
    )
    found = {
        key: grant for grant in grants if (key := (grant.account_id, grant.reference)) in asked
    }
    # Not by a join: of rows that just came PostgreSQL has counted none, and may compare each
    # grant with every entry.
    granted = dict(
        CreditEntry.objects.filter(grant__in=[grant.pk for grant in found.values()])
        .filter(kind__in=_GRANTED)
        .order_by()
        .values_list("grant")
        .annotate(granted=Sum("amount"))
    )
    for grant in found.values():
        vars(grant)["granted"] = granted.get(grant.pk)
    return found


def _planned(
    row: GrantRow,
    accounts: Mapping[UUID, Account],
    found: Mapping[tuple[UUID, str], CreditGrant],
    now: datetime,
) -> PlannedGrant:
    planned = PlannedGrant(
        row.number, row.cells, Outcome.REFUSED, None, None, row.grant, row.faults
    )
    if row.grant is None:
        return planned
    account = accounts.get(row.grant.account_id)
    if account is None:
        fault = Fault("account", f"There is no account {row.grant.account_id}. Look its id up.")
        return replace(planned, faults=(fault,))
    amount = Money(row.grant.amount, account.currency)
    planned = replace(planned, account=account, amount=amount)
    grant = found.get((account.pk, row.grant.reference))
    if refused := _fault_of(row.grant, amount, grant, now):
        return replace(planned, faults=(refused,))
    return replace(planned, outcome=Outcome.GRANTED if grant else Outcome.NEW)


def _fault_of(
    asked: AskedGrant, amount: Money, grant: CreditGrant | None, now: datetime
) -> Fault | None:
    if amount.times(Decimal(1)) != amount:
        return Fault("amount", f"amount is {asked.amount}. Use whole cents of {amount.currency}.")
    # Asked for again it is as good as then, though it may have expired since.
    effective_at = grant.effective_at if grant else now
    if asked.expires_at and asked.expires_at <= effective_at:
        return Fault(
            "expires_at", f"expires_at is {asked.expires_at}, which is over. Use a time ahead."
        )
    if grant is None:
        return None
    granted = annotated(grant, "granted") or Decimal(0)
    if (grant.kind, granted) != (asked.kind, amount.amount):
        return Fault(
            "reference",
            f"reference {asked.reference!r} is {grant.kind} credit of "
            f"{Money(granted, amount.currency)} already. Use another reference for another credit.",
        )
    return None
