"""When lives are over that nobody saw end, or whose end another clock tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from metering import clocks
from metering.models import Gap, Host, Life
from metering.period import from_ms, to_ms
from metering.samples import State
from metering.source import Action, Container, ContainerEvent

_MS_NS = 10**6


def removed_ns(events: Sequence[ContainerEvent]) -> int | None:
    """Return when a container was removed, None where no event tells."""
    removed = [event.at_ns for event in events if event.action is Action.DESTROY]
    return removed[-1] if removed else None


def last_known_ns(host: Host, life: Life) -> int:
    """Return until when a life is known to have been there."""
    # By the host's clock: its newest reading where that is ahead of ours.
    behind_ms = max(-(host.clock_offset_ms or 0), 0)
    last_seen_ms = to_ms(host.last_seen_at or life.started_at) - behind_ms
    return max(last_seen_ms * _MS_NS, life.started_ns)


def true_time(host: Host, life: Life, at_ns: int, now: datetime) -> int:
    """Return when something became of a life: not before it began, by a clock that is right."""
    at_ns = max(at_ns, life.started_ns)
    return clocks.set_right(host, at_ns, not_before_ns=life.started_ns, now=now)


def unknown_end(life: Life, ended_ns: int, now: datetime) -> list[Gap]:
    """Return the gap in which a life ended that nobody saw end; nobody knows when."""
    ended_at = from_ms(ended_ns // _MS_NS)
    if ended_at >= now:
        return []
    return [
        Gap(
            life=life,
            meter=Gap.WHOLE_LIFE,
            start=ended_at,
            end=now,
            reason=Gap.Reason.ENDED_BETWEEN_READINGS,
            recorded_at=now,
        )
    ]


def reopen_closed(
    recorded: Mapping[str, Iterable[Life]],
    containers: Mapping[str, Container],
) -> None:
    """Let lives that were closed while their host was silent end when they did, where it is told.

    Only their own inspection is believed: where another life began meanwhile, there may have
    been more between the two.
    """
    told = {
        (container_id, container.started_ns)
        for container_id, container in containers.items()
        if container.state is State.STOPPED
    }
    ended = {
        life.pk: life
        for container_id, found in recorded.items()
        for life in found
        if life.ended_at is not None and (container_id, life.started_ns) in told
    }
    if ended:
        for number in reopen(Life.objects.filter(was_closed_in_silence(), pk__in=ended)):
            ended[number].ended_at = None


def was_closed_in_silence() -> Exists:
    """Return the condition that a life was closed because its host was silent."""
    gaps = Gap.objects.filter(
        life=OuterRef("pk"), meter=Gap.WHOLE_LIFE, reason=Gap.Reason.HOST_SILENT
    )
    return Exists(gaps)


@transaction.atomic
def reopen(closed: QuerySet[Life]) -> list[int]:
    """Let closed lives go on, which ran, as is known now; return which.

    What was not measured of them meanwhile is the fold's to say.
    """
    # In one order, so that two that do it at once do not wait for each other.
    reopened = list(closed.order_by("pk").select_for_update().values_list("pk", flat=True))
    if reopened:
        Gap.objects.filter(life__in=reopened, meter=Gap.WHOLE_LIFE).delete()
        Life.objects.filter(pk__in=reopened).update(ended_at=None, gone_at=None)
    return reopened


def unknown_limits(
    recorded: Iterable[Life], ended_ns: Mapping[int, int], now: datetime
) -> list[Gap]:
    """Return the gaps of lives that are over and of which nobody knows what they held."""
    gaps = []
    for life in recorded:
        if life.gpu_count is not None or life.pk not in ended_ns:
            continue
        ended_at = from_ms(ended_ns[life.pk] // _MS_NS)
        if ended_at > life.started_at:
            gaps.append(
                Gap(
                    life=life,
                    meter="gpu" if life.cpu_limit_micro != 0 else "allocated",
                    start=life.started_at,
                    end=ended_at,
                    reason=Gap.Reason.LIMITS_UNKNOWN,
                    recorded_at=now,
                )
            )
    return gaps
