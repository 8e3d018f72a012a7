"""Lives as rows: recorded once, with what they may take, or refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction

from metering.labels import explain_left_out, keep_labels
from metering.models import AccountRegistration, Host, Life, LifeReading, Refusal, Sandbox
from metering.period import from_ms, to_ms
from metering.readings import Allocation, new_life_reading
from metering.samples import life_id
from metering.source import (
    ACCOUNT_LABEL,
    LABEL_PREFIX,
    SANDBOX_LABEL,
    UNKNOWN_GPUS,
    Container,
)

SANDBOX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_MS_NS = 10**6
ROWS_AN_INSERT = 2000


class LabelError(ValueError):
    """A container's labels do not say whose sandbox it is."""

    def __init__(self, reason: Refusal.Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@transaction.atomic
def record_lives(host: Host, containers: Iterable[Container], *, now: datetime) -> list[Life]:
    """Record the life each of these containers is living, or lived last; return those new.

    Safe to repeat. A container whose labels are no good is recorded as refused, with the
    reason, and left out; one of whose own labels is no good is recorded without that.
    """
    named: list[tuple[Container, UUID, str]] = []
    refused: list[tuple[Container, LabelError]] = []
    begun = [container for container in containers if container.started_ns is not None]
    for container in begun:
        try:
            named.append((container, *read_labels(container.labels)))
        except LabelError as error:
            refused.append((container, error))
    accounts = AccountRegistration.objects.in_bulk({account for _, account, _ in named})
    known = []
    for container, account_id, sandbox_id in named:
        account = accounts.get(account_id)
        if account is None or not account.takes_life_of((container.started_ns or 0) // _MS_NS):
            refused.append((container, _unknown_account(account_id)))
        else:
            known.append((container, account, sandbox_id))
    sandboxes = have_sandboxes({(account.pk, name) for _, account, name in known}, now)
    lives = [
        _life(host, sandboxes[account.pk, sandbox_id], account, container, now)
        for container, account, sandbox_id in known
    ]
    for container, refusal in refused:
        refuse(host, refusal.reason, container.container_id, str(refusal), now=now)
    new = create_missing(lives)
    _refuse_labels(host, new, {container.container_id: container for container in begun}, now)
    return new


def have_sandboxes(names: set[tuple[UUID, str]], now: datetime) -> dict[tuple[UUID, str], Sandbox]:
    """Return the sandboxes of these accounts and ids, those not met before recorded."""
    Sandbox.objects.bulk_create(
        [
            Sandbox(account_id=account_id, sandbox_id=sandbox_id, recorded_at=now)
            for account_id, sandbox_id in sorted(names)
        ],
        ignore_conflicts=True,
        batch_size=ROWS_AN_INSERT,
    )
    found = Sandbox.objects.filter(
        account__in={account_id for account_id, _ in names},
        sandbox_id__in={sandbox_id for _, sandbox_id in names},
    )
    return {(sandbox.account_id, sandbox.sandbox_id): sandbox for sandbox in found}


def create_missing(lives: list[Life]) -> list[Life]:
    """Record those of these lives that are not recorded, and return them. Safe to repeat."""
    recorded = set(
        Life.objects.filter(pk__in=[life.pk for life in lives]).values_list("pk", flat=True)
    )
    missing = [life for life in lives if life.pk not in recorded]
    Life.objects.bulk_create(missing, ignore_conflicts=True, batch_size=ROWS_AN_INSERT)
    LifeReading.objects.bulk_create(
        map(_first_reading, missing), ignore_conflicts=True, batch_size=ROWS_AN_INSERT
    )
    # Two keys with one number would mix two customers' counters; better to stop here.
    keys = dict(Life.objects.filter(pk__in=[life.pk for life in missing]).values_list("pk", "key"))
    for life in missing:
        if keys[life.pk] != life.key:
            raise RuntimeError(f"Lives {keys[life.pk]} and {life.key} share the number {life.pk}.")
    return missing


def _life(
    host: Host, sandbox: Sandbox, account: AccountRegistration, container: Container, now: datetime
) -> Life:
    if container.started_ns is None:
        raise ValueError(f"{container.container_id} has not started.")
    key = f"{container.container_id}/{container.started_ns}"
    started_ms = container.started_ns // _MS_NS
    known_since = max(account.registered_at, host.registered_at)
    return Life(
        id=life_id(str(host.pk), key),
        sandbox=sandbox,
        host=host,
        key=key,
        container_id=container.container_id,
        started_ns=container.started_ns,
        started_at=from_ms(started_ms),
        counts_from_zero=started_ms >= to_ms(known_since),
        network_unmetered=container.network_unmetered,
        **limits_of(container, host),
        labels=keep_labels(_own_labels(container))[0],
        recorded_at=now,
    )


def _first_reading(life: Life) -> LifeReading:
    reading = new_life_reading(
        life.pk,
        started_ms=life.started_ns // _MS_NS,
        counts_from_zero=life.counts_from_zero,
        allocation=allocation_of(life),
    )[0]
    columns = {name: int(reading[name]) for name in reading.dtype.names or () if name != "life"}
    return LifeReading(life=life, **columns)


def allocation_of(life: Life) -> Allocation:
    """Return what a life may take: its limits, and where it has none all its host offers."""
    host = life.host
    return Allocation(
        cpu_limit_micro=_limit(life.cpu_limit_micro, host.cpu_micro),
        memory_limit_bytes=_limit(life.memory_limit_bytes, host.memory_bytes),
        gpu_count=life.gpu_count or 0,
    )


def _limit(limit: int | None, offered: int | None) -> int:
    return limit if limit is not None else offered or 0


def limits_of(container: Container, host: Host) -> dict[str, int | None]:
    """Return the columns of a life that say what its container may take.

    Of a container that nobody could inspect nothing is allocated; a gap says so.
    """
    if not container.is_inspected:
        return {"cpu_limit_micro": 0, "memory_limit_bytes": 0, "gpu_count": None}
    held = container.gpu_count
    return {
        "cpu_limit_micro": container.cpu_limit_micro,
        "memory_limit_bytes": container.memory_limit_bytes,
        "gpu_count": host.gpu_count if held == UNKNOWN_GPUS else held,
    }


def read_labels(labels: Mapping[str, str]) -> tuple[UUID, str]:
    """Return the account and the sandbox id that a container's labels name. Raises LabelError."""
    account = labels.get(ACCOUNT_LABEL, "")
    if not account:
        raise LabelError(
            Refusal.Reason.ACCOUNT_MISSING,
            f"The label {ACCOUNT_LABEL} is missing. Set it to the account's UUID.",
        )
    try:
        account_id = UUID(account)
    except ValueError:
        raise LabelError(
            Refusal.Reason.ACCOUNT_MALFORMED,
            f"The label {ACCOUNT_LABEL}={account[:64]!r} is no UUID.",
        ) from None
    sandbox_id = labels.get(SANDBOX_LABEL, "")
    if not SANDBOX_ID.fullmatch(sandbox_id):
        raise LabelError(
            Refusal.Reason.SANDBOX_MALFORMED,
            f"The label {SANDBOX_LABEL}={sandbox_id[:64]!r} is not 1 to 128 letters, digits, "
            "or . _ : - after the first.",
        )
    return account_id, sandbox_id


def _own_labels(container: Container) -> dict[str, str]:
    """Return the labels that are the account's own, by name."""
    return {
        label.removeprefix(LABEL_PREFIX): value
        for label, value in container.labels.items()
        if label.startswith(LABEL_PREFIX)
    }


def _refuse_labels(
    host: Host, lives: Iterable[Life], containers: Mapping[str, Container], now: datetime
) -> None:
    """Record which labels of lives just recorded are left out of them, and why."""
    refused = {}
    for life in lives:
        _, left_out = keep_labels(_own_labels(containers[life.container_id]))
        if left_out:
            detail = (
                f"Left out of labels {LABEL_PREFIX}… {explain_left_out(left_out)}. The life is "
                "metered. Correct them, and start a new container."
            )
            refused[Refusal.Reason.LABEL_LEFT_OUT, life.container_id] = detail, 1
    refuse_all(host, refused, now=now)


def _unknown_account(account_id: UUID) -> LabelError:
    return LabelError(
        Refusal.Reason.ACCOUNT_UNKNOWN,
        f"The label {ACCOUNT_LABEL}={account_id} names no open account. Open it, or correct the "
        "label.",
    )


def refuse(
    host: Host, reason: Refusal.Reason, subject: str, detail: str, *, now: datetime, count: int = 1
) -> None:
    """Record that something on a host is not metered, and why. Repeating it adds to its count."""
    refuse_all(host, {(reason, subject[:128]): (detail, count)}, now=now)


def refuse_all(
    host: Host, refused: Mapping[tuple[Refusal.Reason, str], tuple[str, int]], *, now: datetime
) -> None:
    """Record many refusals at once: detail and count of each, by reason and subject."""
    if not refused:
        return
    # In one order, so that two that do it at once do not wait for each other.
    rows = [(*key, detail[:500], count) for key, (detail, count) in sorted(refused.items())]
    reasons, subjects, details, counts = map(list, zip(*rows, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO metering_refusal AS kept
                (host_id, reason, subject, detail, count, first_at, last_at)
            SELECT %s, reason, subject, detail, count, %s, %s
            FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
                refused(reason, subject, detail, count)
            ON CONFLICT (host_id, reason, subject) DO UPDATE SET
                count = kept.count + EXCLUDED.count,
                detail = EXCLUDED.detail,
                last_at = EXCLUDED.last_at
            """,
            [host.pk, now, now, [str(reason) for reason in reasons], subjects, details, counts],
        )
