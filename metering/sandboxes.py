"""An account's sandboxes: found, and told of by their newest life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Exists, JSONField, OuterRef, Q, QuerySet, Subquery

from metering.models import Life, Sandbox

MOST_LIVES = 20
"""So many lives of a sandbox are told, the newest ones."""


@dataclass(frozen=True, slots=True)
class LifeSummary:
    """One start of a sandbox. Limits of None: all that its host offers; cpus in millionths."""

    started_at: datetime
    ended_at: datetime | None
    oom_at: datetime | None
    cpu_limit_micro: int | None
    memory_limit_bytes: int | None
    gpu_count: int | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SandboxSummary:
    """A sandbox, how often it was started and since when, and its newest life if it had one.

    `interval_s`, the seconds between two readings, is None where the installation's holds.
    """

    sandbox_id: str
    recorded_at: datetime
    interval_s: int | None
    is_running: bool
    starts: int
    first_started_at: datetime | None
    newest: LifeSummary | None


def no_sandboxes() -> QuerySet[Sandbox]:
    """Return a queryset of sandboxes without any."""
    return Sandbox.objects.none()


def sandboxes_of(account_id: UUID) -> QuerySet[Sandbox]:
    """Return the account's sandboxes; by their ids they come from an index."""
    return Sandbox.objects.filter(account=account_id)


def that_run(sandboxes: QuerySet[Sandbox], *, run: bool) -> QuerySet[Sandbox]:
    """Return those that run as far as is known, or those that do not."""
    running = Exists(Life.objects.filter(sandbox=OuterRef("pk"), ended_at__isnull=True))
    return sandboxes.filter(running if run else ~running)


def that_ran(
    sandboxes: QuerySet[Sandbox], *, start: datetime | None, end: datetime | None
) -> QuerySet[Sandbox]:
    """Return those that ran at some time in `[start, end)`; None is no bound."""
    lives = Life.objects.filter(sandbox=OuterRef("pk"))
    if end is not None:
        lives = lives.filter(started_at__lt=end)
    if start is not None:
        lives = lives.filter(Q(ended_at__isnull=True) | Q(ended_at__gt=start))
    # A scalar of each sandbox in turn, so that a page's worth of them is looked at.
    return sandboxes.alias(then=Subquery(lives.values("pk")[:1])).filter(then__isnull=False)


def with_label(sandboxes: QuerySet[Sandbox], name: str, value: str | None) -> QuerySet[Sandbox]:
    """Return those whose newest life has the label; of any value where that is None."""
    labels = Subquery(_newest_first().values("labels")[:1], output_field=JSONField())
    labelled = sandboxes.alias(newest_labels=labels)
    if value is None:
        return labelled.filter(newest_labels__has_key=name)
    return labelled.filter(Q(newest_labels__contains={name: value}))


def describe(sandboxes: Sequence[Sandbox]) -> list[SandboxSummary]:
    """Return what is told of each of these sandboxes, in two queries."""
    with connection.cursor() as cursor:
        cursor.execute(_LIVES_OF_EACH, [[sandbox.pk for sandbox in sandboxes]])
        counts = {sandbox: of_lives for sandbox, *of_lives in cursor.fetchall()}
    newest = Life.objects.in_bulk([of_lives[-1] for of_lives in counts.values() if of_lives[-1]])
    return [_summary(sandbox, newest, *counts[sandbox.pk]) for sandbox in sandboxes]


# The aggregate has each sandbox's lives looked up by their index, whatever is known of how many
# there are: else all lives of everybody may be read to find those of one page.
_LIVES_OF_EACH = """
    SELECT wanted.id, lives.starts, lives.running, lives.first_started_at, lives.newest
      FROM unnest(%s::bigint[]) AS wanted (id)
     CROSS JOIN LATERAL (
            SELECT count(*) AS starts,
                   count(*) FILTER (WHERE ended_at IS NULL) AS running,
                   min(started_at) AS first_started_at,
                   (array_agg(id ORDER BY started_at DESC, id DESC))[1] AS newest
              FROM metering_life
             WHERE sandbox_id = wanted.id
           ) AS lives
"""


def describe_one(
    account_id: UUID, sandbox_id: str
) -> tuple[SandboxSummary, list[LifeSummary]] | None:
    """Return what is told of one sandbox, and its newest lives; None where there is no such."""
    found = list(sandboxes_of(account_id).filter(sandbox_id=sandbox_id))
    if not found:
        return None
    lives = Life.objects.filter(sandbox=found[0]).order_by("-started_at", "-pk")[:MOST_LIVES]
    return describe(found)[0], [_told(life) for life in lives]


def _newest_first() -> QuerySet[Life]:
    """Return the lives of an outer sandbox."""
    return Life.objects.filter(sandbox=OuterRef("pk")).order_by("-started_at", "-pk")


def _summary(  # a column an argument
    sandbox: Sandbox,
    lives: Mapping[int, Life],
    starts: int,
    running: int,
    first: datetime | None,
    newest: int | None,
) -> SandboxSummary:
    return SandboxSummary(
        sandbox_id=sandbox.sandbox_id,
        recorded_at=sandbox.recorded_at,
        interval_s=sandbox.interval_s,
        is_running=running > 0,
        starts=starts,
        first_started_at=first,
        newest=None if newest is None else _told(lives[newest]),
    )


def _told(life: Life) -> LifeSummary:
    return LifeSummary(
        started_at=life.started_at,
        ended_at=life.ended_at,
        oom_at=life.oom_at,
        cpu_limit_micro=life.cpu_limit_micro,
        memory_limit_bytes=life.memory_limit_bytes,
        gpu_count=life.gpu_count,
        labels=life.labels,
    )
