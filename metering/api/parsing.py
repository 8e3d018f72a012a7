"""From JSON values to samples within their bounds, or to what is wrong with each."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from metering.believing import (
    ACCEPTED_AHEAD,
    ACCEPTED_BEHIND,
    LARGEST_CPU_LIMIT_MICRO,
    LARGEST_MEMORY_BYTES,
    LARGEST_STORAGE_BYTES,
)
from metering.labels import MOST_LABELS, find_fault
from metering.lives import SANDBOX_ID
from metering.period import to_ms
from metering.samples import Event, State
from metering.sent import Fault, Rejection, SentSample, subject_of

EVENT_TYPE = "soulbox.sandbox.sample"
LARGEST_COUNTER = 2**62 - 1
LARGEST_GPU_COUNT = 2**16 - 1
# Well below the ten minutes after which a host counts as silent.
LARGEST_INTERVAL_S = 300
LONGEST_LIFE_KEY = 128
MOST_INTERFACES = 64

LARGEST = {
    "cpu_ns": LARGEST_COUNTER,
    "disk_read_bytes": LARGEST_COUNTER,
    "disk_write_bytes": LARGEST_COUNTER,
    "memory_bytes": LARGEST_MEMORY_BYTES,
    "storage_bytes": LARGEST_STORAGE_BYTES,
    "cpu_limit_micro": LARGEST_CPU_LIMIT_MICRO,
    "memory_limit_bytes": LARGEST_MEMORY_BYTES,
    "gpu_count": LARGEST_GPU_COUNT,
}
INTERFACE_COUNTERS = ("rx_bytes", "tx_bytes")
STATES = {"running": State.RUNNING, "paused": State.PAUSED, "stopped": State.STOPPED}
EVENTS = {"periodic": Event.PERIODIC, "started": Event.STARTED, "stopped": Event.STOPPED}
REQUIRED = ("sandbox_id", "life", "started_at", "read_at")
FIELDS = ("account_id", *REQUIRED, *LARGEST, "interfaces", "labels", "state", "event", "interval_s")

# A name that begins so means this field, in another unit or without one.
_MEANT = {
    "cpu_limit": "cpu_limit_micro, in millionths of a cpu",
    "memory_limit": "memory_limit_bytes",
    "cpu": "cpu_ns, the cpu time since the life began, in nanoseconds",
    "memory": "memory_bytes",
    "mem": "memory_bytes",
    "storage": "storage_bytes",
    "disk_read": "disk_read_bytes, a running total",
    "disk_write": "disk_write_bytes, a running total",
    "disk": "disk_read_bytes and disk_write_bytes, running totals",
    "gpu": "gpu_count, the devices held",
    "network": "interfaces",
    "label": "labels, by name",
    "interval": "interval_s, in seconds",
    "started": "started_at, in RFC 3339",
    "read": "read_at, in RFC 3339",
    "rx": "rx_bytes, a running total",
    "tx": "tx_bytes, a running total",
}
_IN_INTERFACES = ("rx", "tx")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
_INTERFACE_NAME = re.compile(r"[!-.0-~]{1,15}")
_LOOPBACK = "lo"
_EARLIEST_START_MS = 0

Fields = Mapping[str, Any]


class SampleError(ValueError):
    """A sample cannot be taken; says which field, what is wrong with it, and the way out."""

    def __init__(self, field: str, fault: Fault, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.fault = fault
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Said:
    """What holds for each sample of a call unless it says so itself, and the time of the call."""

    account_id: UUID | None
    interval_s: int
    now: datetime


def read_samples(
    values: Iterable[Any], open_value: Callable[[Any], Fields], said: Said
) -> tuple[list[SentSample], list[Rejection]]:
    """Return the samples among a call's values, and what is wrong with the others.

    `open_value` gives the fields of a sample: `open_sample`, or `open_event` for CloudEvents.
    """
    samples, rejected = [], []
    for index, value in enumerate(values):
        fields: Fields = {}
        try:
            fields = open_value(value)
            samples.append(_read_sample(index, fields, said))
        except SampleError as error:
            rejected.append(
                Rejection(index, error.field, error.fault, error.detail, _subject(fields, said))
            )
    return samples, rejected


def open_sample(value: Any) -> Fields:
    """Return the fields of a sample. Raises SampleError."""
    if not isinstance(value, dict):
        raise SampleError("sample", Fault.MALFORMED, "A sample is a JSON object.")
    return value


def open_event(value: Any) -> Fields:
    """Return the fields of the sample that a CloudEvent carries. Raises SampleError.

    The event's time stands in for a `read_at` that the sample does not have.
    """
    event = open_sample(value)
    for name, expected in (("specversion", "1.0"), ("type", EVENT_TYPE)):
        if name not in event:
            raise SampleError(name, Fault.MISSING, f'A CloudEvent says "{name}": "{expected}".')
        if event[name] != expected:
            raise SampleError(name, Fault.MALFORMED, f'Only "{expected}" is taken here.')
    for name in ("id", "source"):
        if not (isinstance(event.get(name), str) and event[name]):
            raise SampleError(name, Fault.MISSING, f"A CloudEvent has a text as {name}.")
    if "data" not in event:
        raise SampleError("data", Fault.MISSING, "Put the sample there, as a JSON object.")
    if not isinstance(event["data"], dict):
        raise SampleError("data", Fault.MALFORMED, "The sample is a JSON object.")
    fields: dict[str, Any] = event["data"]
    if fields.get("read_at") is None and event.get("time") is not None:
        _time_ms("time", event["time"])
        fields = fields | {"read_at": event["time"]}
    return fields


def _read_sample(index: int, fields: Fields, said: Said) -> SentSample:
    _refuse_unknown(fields, FIELDS, _MEANT.keys() - set(_IN_INTERFACES))
    account_id = _account_id(fields, said)
    for name in REQUIRED:
        if fields.get(name) is None:
            raise SampleError(name, Fault.MISSING, f"Every sample has a {name}.")
    started_ms, read_ms = _times_ms(fields, said.now)
    state = _one_of(STATES, fields, "state", State.RUNNING)
    event = _one_of(EVENTS, fields, "event", Event.PERIODIC)
    if event is Event.STOPPED and state is not State.STOPPED:
        detail = 'The event stopped ends the life: send it with "state": "stopped".'
        raise SampleError("state", Fault.NOT_STOPPED, detail)
    return SentSample(
        index=index,
        account_id=account_id,
        sandbox_id=_sandbox_id(fields["sandbox_id"]),
        life=_life_key(fields["life"]),
        started_ms=started_ms,
        read_ms=read_ms,
        interval_ms=_interval_s(fields, said) * 1000,
        state=state,
        event=event,
        interfaces=_interfaces(fields.get("interfaces")),
        labels=_labels(fields.get("labels")),
        # null is what a runtime sends that did not read a figure: it is not 0.
        **{
            name: None if fields.get(name) is None else _integer(name, fields[name], largest)
            for name, largest in LARGEST.items()
        },
    )


def _refuse_unknown(
    fields: Fields, known: Collection[str], stems: Collection[str], *, inside: str = ""
) -> None:
    for name in fields:
        if name in known:
            continue
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        meant = [stem for stem in stems if words == stem or words.startswith(f"{stem}_")]
        if words in known:
            detail = f"It is written {words}."
        elif meant:
            raise SampleError(
                inside + _shown(name), Fault.WRONG_UNIT, f"Send {_MEANT[max(meant, key=len)]}."
            )
        else:
            detail = f"No such field. There are {', '.join(known)}."
        raise SampleError(inside + _shown(name), Fault.UNKNOWN_FIELD, detail)


def _account_id(fields: Fields, said: Said) -> UUID:
    value = fields.get("account_id")
    if value is None:
        if said.account_id is None:
            detail = "Say whose sandbox it is: the key speaks of every account."
            raise SampleError("account_id", Fault.MISSING, detail)
        return said.account_id
    account_id = read_uuid(value)
    if account_id is None:
        raise SampleError("account_id", Fault.MALFORMED, f"{_shown(value)} is no UUID.")
    return account_id


def read_uuid(value: Any) -> UUID | None:
    """Return the UUID that a text is in its usual form, None for anything else."""
    try:
        found = UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found and str(found) == value.lower() else None


def _sandbox_id(value: Any) -> str:
    if not (isinstance(value, str) and SANDBOX_ID.fullmatch(value)):
        detail = f"{_shown(value)} is not 1 to 128 letters, digits, or . _ : - after the first."
        raise SampleError("sandbox_id", Fault.MALFORMED, detail)
    return value


def _life_key(value: Any) -> str:
    if not (isinstance(value, str) and value.isprintable() and 1 <= len(value) <= LONGEST_LIFE_KEY):
        detail = f"{_shown(value)} is not 1 to {LONGEST_LIFE_KEY} printable characters."
        raise SampleError("life", Fault.MALFORMED, detail)
    return value


def _times_ms(fields: Fields, now: datetime) -> tuple[int, int]:
    """Return when the life started and when it was read."""
    started_ms = _time_ms("started_at", fields["started_at"])
    if started_ms < _EARLIEST_START_MS:
        raise SampleError("started_at", Fault.TOO_OLD, "It is before 1970.")
    read_ms = _time_ms("read_at", fields["read_at"])
    if read_ms > to_ms(now + ACCEPTED_AHEAD):
        detail = "It is over 5 minutes ahead. Set the clock that gave it."
        raise SampleError("read_at", Fault.TOO_FAR_AHEAD, detail)
    if read_ms < to_ms(now - ACCEPTED_BEHIND):
        detail = "It is over 35 days behind. What was read then is no longer counted."
        raise SampleError("read_at", Fault.TOO_OLD, detail)
    if read_ms < started_ms:
        detail = "It is before started_at. A life is read after it began."
        raise SampleError("read_at", Fault.BEFORE_START, detail)
    return started_ms, read_ms


def _time_ms(name: str, value: Any) -> int:
    """Return milliseconds since 1970, rounded down."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        detail = f"{_shown(value)} is no RFC 3339 time, as in 2026-11-02T10:07:00.000Z."
        raise SampleError(name, Fault.MALFORMED, detail)
    date, time, fraction, zone = match.groups()
    if zone is None:
        detail = f"{_shown(value)} has no zone. End it with Z, or with an offset as in +01:00."
        raise SampleError(name, Fault.NO_TIME_ZONE, detail)
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{zone.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        detail = f"{_shown(value)} is on no calendar."
        raise SampleError(name, Fault.MALFORMED, detail) from None
    return to_ms(moment) + int(f"{fraction or ''}000"[:3])


def _one_of(known: Mapping[str, Any], fields: Fields, name: str, default: Any) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in known:
        detail = f"{_shown(value)} is none of {', '.join(known)}."
        raise SampleError(name, Fault.MALFORMED, detail)
    return known[value]


def _interval_s(fields: Fields, said: Said) -> int:
    value = fields.get("interval_s")
    if value is None:
        return said.interval_s
    interval_s = _integer("interval_s", value, LARGEST_INTERVAL_S)
    if interval_s == 0:
        raise SampleError("interval_s", Fault.TOO_SMALL, "It is at least 1 second.")
    return interval_s


def _interfaces(value: Any) -> tuple[tuple[str, int, int], ...]:
    """Return name, received and sent bytes of each interface, by name, loopback left out."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        detail = 'An object, as in {"eth0": {"rx_bytes": 0, "tx_bytes": 0}}.'
        raise SampleError("interfaces", Fault.MALFORMED, detail)
    if len(value) > MOST_INTERFACES:
        detail = f"There are {len(value)} of them; at most {MOST_INTERFACES} are taken."
        raise SampleError("interfaces", Fault.TOO_LARGE, detail)
    return tuple(
        (name, *_interface(name, totals))
        for name, totals in sorted(value.items())
        if name != _LOOPBACK
    )


def _interface(name: str, totals: Any) -> tuple[int, int]:
    path = f"interfaces.{_shown(name)}"
    if not _INTERFACE_NAME.fullmatch(name):
        detail = "A name is 1 to 15 printable ASCII characters without space or slash."
        raise SampleError(path, Fault.MALFORMED, detail)
    if not isinstance(totals, dict):
        detail = 'An object, as in {"rx_bytes": 0, "tx_bytes": 0}.'
        raise SampleError(path, Fault.MALFORMED, detail)
    _refuse_unknown(totals, INTERFACE_COUNTERS, _IN_INTERFACES, inside=f"{path}.")
    rx_bytes, tx_bytes = (
        _interface_counter(f"{path}.{counter}", totals.get(counter))
        for counter in INTERFACE_COUNTERS
    )
    return rx_bytes, tx_bytes


def _interface_counter(path: str, value: Any) -> int:
    if value is None:
        detail = "An interface has both rx_bytes and tx_bytes."
        raise SampleError(path, Fault.MISSING, detail)
    return _integer(path, value, LARGEST_COUNTER)


def _labels(value: Any) -> tuple[tuple[str, str], ...]:
    """Return name and value of each label, by name."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        detail = 'An object, as in {"team": "search"}.'
        raise SampleError("labels", Fault.MALFORMED, detail)
    if len(value) > MOST_LABELS:
        detail = f"There are {len(value)} of them; at most {MOST_LABELS} are taken."
        raise SampleError("labels", Fault.TOO_LARGE, detail)
    for name, text in value.items():
        fault = find_fault(name, text) if isinstance(text, str) else "a value is a text"
        if fault:
            path = f"labels.{_shown(name)}"
            raise SampleError(path, Fault.MALFORMED, f"{fault[0].upper()}{fault[1:]}.")
    return tuple(sorted(value.items()))


def _integer(name: str, value: Any, largest: int) -> int:
    # bool is an int to Python, and not to anybody else.
    if type(value) is not int:
        detail = f"{_shown(value)} is no whole number. Send digits only, without a fraction."
        raise SampleError(name, Fault.NOT_AN_INTEGER, detail)
    if value < 0:
        raise SampleError(name, Fault.NEGATIVE, f"{_shown(value)} is negative.")
    if value > largest:
        raise SampleError(name, Fault.TOO_LARGE, f"It is over {largest}, the most that is taken.")
    return value


def _subject(fields: Fields, said: Said) -> str:
    """Return what a refusal is about, as far as the sample says."""
    account = fields.get("account_id")
    if account is None:
        account = said.account_id or ""
    parts = (account, fields.get("sandbox_id", ""), fields.get("life", ""))
    return subject_of(*(_shown(part) if part != "" else "" for part in parts))


def _shown(value: Any) -> str:
    """Return a value as short printable text, safe to store and to send back."""
    text = value if isinstance(value, str) else str(value) if _is_plain(value) else "…"
    return "".join(mark if mark.isprintable() else "?" for mark in text[:64])


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, UUID))
