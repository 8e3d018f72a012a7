"""What is old enough to go, what holds the rest back, and letting it go.

**Months of usage** are dropped whole, by dropping their partitions, once their end is older than
`METERING_USAGE_RETENTION` and no open invoice needs them. Metering knows no invoices; billing
tells it by freezing: windows before an account's `frozen_until` are finally invoiced. So

- an active account holds every month in which it has records and up to whose end it is not
  frozen, however old: usage that was not billed does not vanish;
- an account that is not active holds it for one retention longer, time enough for a last
  invoice, and no longer: nobody would ever freeze it;
- a month that is held holds those after it too, so that what is kept has no holes.

**What belonged to dropped months** goes when nothing refers to it: gaps and falls before the
oldest month, lives that had ended and were gone before it, with their readings, sandboxes
without lives and summaries. Late usage stays as long as summaries: it is billed after its window.

**Summaries of days** go after `METERING_SUMMARY_RETENTION`.

Safe to repeat and to stop anywhere: each batch is its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet

from metering.models import (
    AccountRegistration,
    CounterReset,
    DailyUsageSummary,
    DailyUsageTotal,
    Gap,
    InterfaceReading,
    LateUsage,
    Life,
    LifeReading,
    Refusal,
    Sandbox,
    StorageReading,
)
from metering.partitions import Month, drop_month, months_kept

ROWS_PER_BATCH = 5_000
BATCHES_PER_RUN = 200
HOLDERS_NAMED = 5


@dataclass(frozen=True, slots=True)
class HeldMonth:
    """A month that is old enough and stays, and why."""

    month: Month
    reason: str


@dataclass(slots=True)
class CleanUp:
    """What goes, or went: months, and rows by what they are. And which months stay, and why."""

    months: list[Month] = field(default_factory=list)
    held: list[HeldMonth] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "months": [f"{month.start:%Y-%m}" for month in self.months],
            "held": [
                {"month": f"{held.month.start:%Y-%m}", "reason": held.reason} for held in self.held
            ],
            "rows": self.rows,
        }

    def lines(self) -> list[str]:
        """Return it for people, a line each."""
        return [
            *(f"usage of {month.start:%Y-%m}: its retention is over" for month in self.months),
            *(f"usage of {held.month.start:%Y-%m} stays: {held.reason}" for held in self.held),
            *(f"{name}: {count:,}" for name, count in self.rows.items() if count),
        ]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Rows that may go, by what people call them; those of `attached` models go with each."""

    name: str
    rows: QuerySet[Any]
    attached: Sequence[tuple[type[Model], str]] = ()


def plan_clean_up(*, now: datetime) -> CleanUp:
    """Return what a clean-up would remove now. Rows that only go after a month are not in it."""
    plan = _months(now)
    for rule in _rules(now, _oldest(months_kept())):
        plan.rows[rule.name] = rule.rows.count()
    return plan


def clean_up(*, now: datetime, watch: Callable[[int], None] = lambda _: None) -> CleanUp:
    """Remove what may go, months first; return what went.

    Bounded: what a run does not come to, the next does. `watch` is told how many more rows went.
    """
    done = _months(now)
    for month in done.months:
        drop_month(month)
    for rule in _rules(now, _oldest(months_kept())):
        done.rows[rule.name] = _remove(rule, watch)
    return done


def _retention() -> timedelta:
    return timedelta(days=settings.METERING_USAGE_RETENTION_D)


def _oldest(months: Sequence[Month]) -> datetime | None:
    return months[0].start if months else None


def _months(now: datetime) -> CleanUp:
    plan = CleanUp()
    for month in months_kept():
        if month.end > now - _retention():
            break
        if plan.held:
            earlier = plan.held[0].month.start
            plan.held.append(HeldMonth(month, f"{earlier:%Y-%m} is kept, and there are no holes"))
        elif holders := _holders(month, now):
            plan.held.append(HeldMonth(month, _reason(holders)))
        else:
            plan.months.append(month)
    return plan


def _holders(month: Month, now: datetime) -> list[AccountRegistration]:
    """Return the accounts with usage in a month that are not frozen to its end, and hold it."""
    unfrozen = AccountRegistration.objects.filter(
        Q(frozen_until=None) | Q(frozen_until__lt=month.end)
    ).order_by("account_id")
    if month.end <= now - 2 * _retention():
        unfrozen = unfrozen.filter(is_active=True)
    accounts = unfrozen.in_bulk()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT account_id FROM unnest(%s::uuid[]) account_id WHERE EXISTS (
                SELECT FROM metering_sandbox sandbox
                JOIN metering_life life ON life.sandbox_id = sandbox.id
                WHERE sandbox.account_id = account_id.account_id AND (
                    EXISTS (SELECT FROM metering_usagerecord record
                        WHERE record.life_id = life.id
                        AND record.window_start >= %s AND record.window_start < %s)
                    OR EXISTS (SELECT FROM metering_storageusagerecord record
                        WHERE record.life_id = life.id
                        AND record.window_start >= %s AND record.window_start < %s)
                    OR EXISTS (SELECT FROM metering_interfacereading reading
                        JOIN metering_networkusagerecord record
                        ON record.interface_id = reading.interface
                        WHERE reading.life_id = life.id
                        AND record.window_start >= %s AND record.window_start < %s)))
            """,
            [list(accounts), *(month.start, month.end) * 3],
        )
        return [accounts[account_id] for (account_id,) in cursor.fetchall()]


def _reason(holders: Sequence[AccountRegistration]) -> str:
    named = ", ".join(
        f"account {holder.pk} is invoiced to "
        + ("nowhere yet" if holder.frozen_until is None else f"{holder.frozen_until:%Y-%m-%d}")
        for holder in holders[:HOLDERS_NAMED]
    )
    more = len(holders) - HOLDERS_NAMED
    return named + (f", and {more:,} more" if more > 0 else "")


def _rules(now: datetime, oldest: datetime | None) -> Iterable[_Rule]:
    """Yield what may go, each after what refers to it."""
    before = min(oldest, now - _retention()) if oldest else now - _retention()
    summaries_from = now - timedelta(days=settings.METERING_SUMMARY_RETENTION_D)
    yield _Rule(
        "summaries of days", DailyUsageSummary.objects.filter(day__lt=summaries_from.date())
    )
    yield _Rule("totals of days", DailyUsageTotal.objects.filter(day__lt=summaries_from.date()))
    yield _Rule("late usage", LateUsage.objects.filter(window_start__lt=summaries_from))
    yield _Rule("refusals", Refusal.objects.filter(last_at__lt=now - _retention()))
    yield _Rule("gaps", Gap.objects.filter(end__lte=before))
    yield _Rule("falls of counters", CounterReset.objects.filter(at__lt=before))
    attached: list[tuple[type[Model], str]] = [
        (InterfaceReading, "life_id"),
        (StorageReading, "life_id"),
        (LifeReading, "life_id"),
    ]
    over = Life.objects.filter(ended_at__lt=before, gone_at__lt=before)
    yield _Rule(
        "lives with their readings",
        over.exclude(_is_referred_to(Life, besides={model for model, _ in attached})).exclude(
            Exists(
                InterfaceReading.objects.filter(
                    _is_referred_to(InterfaceReading), life=OuterRef("pk")
                )
            )
        ),
        attached,
    )
    yield _Rule(
        "sandboxes",
        Sandbox.objects.filter(recorded_at__lt=before).exclude(_is_referred_to(Sandbox)),
    )


def _is_referred_to(model: type[Model], *, besides: Iterable[type[Model]] = ()) -> Q:
    """Return whether any row of any app refers to a row of `model`, but those of `besides`."""
    # Asked of Django, since apps that metering may not import refer to its rows too.
    relations = [
        relation
        for relation in model._meta.get_fields(include_hidden=True)  # noqa: SLF001 - Django's API
        if isinstance(relation, models.ForeignObjectRel)
        and relation.related_model._meta.managed  # noqa: SLF001 - Django's API
        and relation.related_model not in set(besides)
    ]
    referring = (
        Q(Exists(_rows_of(relation.related_model).filter(**{relation.field.name: OuterRef("pk")})))
        for relation in relations
    )
    return reduce(or_, referring)


def _rows_of(model: Any) -> QuerySet[Any]:
    rows: QuerySet[Any] = model.objects.all()
    return rows


def _remove(rule: _Rule, watch: Callable[[int], None]) -> int:
    removed = 0
    for _ in range(BATCHES_PER_RUN):
        with transaction.atomic():
            # Locked, so that nothing begins to refer to them before they are gone.
            batch = list(
                rule.rows.select_for_update(skip_locked=True, of=("self",)).values_list(
                    "pk", flat=True
                )[:ROWS_PER_BATCH]
            )
            for model, column in rule.attached:
                _rows_of(model).filter(**{f"{column}__in": batch}).delete()
            _rows_of(rule.rows.model).filter(pk__in=batch).delete()
        removed += len(batch)
        watch(len(batch))
        if len(batch) < ROWS_PER_BATCH:
            break
    return removed
