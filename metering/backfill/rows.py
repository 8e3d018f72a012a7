"""One row of a file of samples: what it says, or which field is no good. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from metering.backfill.series import MISSED_BY_REASON
from metering.period import to_ms
from metering.samples import Event, Known, Missed, State

_T = TypeVar("_T")

COUNTER_BELOW = 2**62
MEMORY_UP_TO = 8 * 2**40
CPU_LIMIT_UP_TO_MICRO = 100_000 * 10**6
INTERVAL_UP_TO_S = 3600

_STATES = {state.name.lower(): state for state in State}
_INTERFACE = re.compile(r"[!-.0-~]{1,15}")
_LIFE = re.compile(r"[!-~]{1,200}")
_FIGURES = {
    "cpu_ns": (Known.CPU, COUNTER_BELOW - 1),
    "memory_bytes": (Known.MEMORY, MEMORY_UP_TO),
    "disk_read_bytes": (Known.DISK_READ, COUNTER_BELOW - 1),
    "disk_write_bytes": (Known.DISK_WRITE, COUNTER_BELOW - 1),
}
_LIMITS = {
    "cpu_limit_micro": CPU_LIMIT_UP_TO_MICRO,
    "memory_limit_bytes": MEMORY_UP_TO,
    "gpu_count": 2**16 - 1,
}
_NETWORK = ("rx_bytes", "tx_bytes")
_STORAGE = ("storage_layer_bytes", "storage_volume_bytes", "storage_gone")
COLUMNS = (
    *("host", "life", "account_id", "sandbox_id", "started_at", "read_at", "interval_s"),
    *("state", "missed", *_FIGURES, *_LIMITS, "interface", *_NETWORK, *_STORAGE),
    "storage_interval_s",
)


class RowError(ValueError):
    """A row is refused; the message begins with the field that is no good."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Birth:
    """Whose a life is and when it began, in ns since 1970: enough to record it."""

    account_id: UUID
    sandbox_id: str
    started_ns: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the life as it is named, and up to one sample of each kind, by column."""

    host: str
    life: str
    birth: Birth | None
    read_ms: int
    interval_s: int | None
    storage_interval_s: int | None
    missed: Missed
    sample: Mapping[str, int] = field(default_factory=dict)
    interface: str = ""
    network: Mapping[str, int] = field(default_factory=dict)
    storage: Mapping[str, int] = field(default_factory=dict)


def parse_row(values: Mapping[str, Any]) -> Row:
    """Return what a row says. An empty text and null are no value. Raises RowError."""
    given = {name: value for name, value in values.items() if value is not None and value != ""}
    if unknown := given.keys() - set(COLUMNS):
        raise RowError(str(min(map(str, unknown))), "there is no such column.")
    if "host" not in given:
        raise RowError("host", "is missing.")
    birth = _birth(given)
    life = str(given.get("life", ""))
    if not life and birth is None:
        raise RowError("life", "is missing, and so are account_id, sandbox_id and started_at.")
    if birth is not None and not life:
        life = f"{birth.sandbox_id}/{birth.started_ns}"
    if not _LIFE.fullmatch(life):
        raise RowError("life", "is not 1 to 200 printable characters without spaces.")
    row = Row(
        host=str(given["host"]),
        life=life,
        birth=birth,
        read_ms=_time_ms(given, "read_at"),
        interval_s=_interval(given, "interval_s"),
        storage_interval_s=_interval(given, "storage_interval_s"),
        missed=_choice(given, "missed", MISSED_BY_REASON, Missed.UNEXPLAINED),
        sample=_sample(given),
        interface=_interface(given),
        network={name: _whole(given, name, COUNTER_BELOW - 1) for name in _NETWORK}
        if "interface" in given
        else {},
        storage=_storage(given),
    )
    if not (row.sample or row.network or row.storage):
        raise RowError("cpu_ns", "is missing, and so is every other figure.")
    return row


def _birth(given: Mapping[str, Any]) -> Birth | None:
    names = {"account_id", "sandbox_id", "started_at"}
    if not (some := names & given.keys()):
        return None
    if missing := names - some:
        raise RowError(min(missing), f"is missing beside {min(some)}.")
    try:
        account_id = UUID(str(given["account_id"]))
    except ValueError:
        raise RowError("account_id", f"{given['account_id']!r} is no UUID.") from None
    started_ns = _time_ms(given, "started_at") * 10**6
    return Birth(account_id, str(given["sandbox_id"]), started_ns)


def _sample(given: Mapping[str, Any]) -> dict[str, int]:
    known = Known(0)
    sample: dict[str, int] = {}
    for name, (bit, largest) in _FIGURES.items():
        if name in given:
            sample[name] = _whole(given, name, largest)
            known |= bit
    if limits := _LIMITS.keys() & given.keys():
        if missing := _LIMITS.keys() - limits:
            raise RowError(min(missing), f"is missing beside {min(limits)}.")
        sample |= {name: _whole(given, name, largest) for name, largest in _LIMITS.items()}
        known |= Known.ALLOCATION
    if not sample and "state" not in given:
        return {}
    state = _choice(given, "state", _STATES, State.RUNNING)
    event = Event.STOPPED if state is State.STOPPED else Event.PERIODIC
    if not known & ~Known.ALLOCATION and event is Event.PERIODIC:
        event = Event.CHANGED
    return sample | {"known": int(known), "state": int(state), "event": int(event)}


def _interface(given: Mapping[str, Any]) -> str:
    if "interface" not in given:
        if alone := [name for name in _NETWORK if name in given]:
            raise RowError("interface", f"is missing beside {alone[0]}.")
        return ""
    name = str(given["interface"])
    if not _INTERFACE.fullmatch(name):
        raise RowError("interface", f"{name!r} is not a name of 1 to 15 characters.")
    return name


def _storage(given: Mapping[str, Any]) -> dict[str, int]:
    if not any(name in given for name in _STORAGE):
        return {}
    is_gone = _whole(given, "storage_gone", 1) if "storage_gone" in given else 0
    layer, volumes, _ = _STORAGE
    if not is_gone and layer not in given:
        raise RowError(layer, "is missing beside the other figures of storage.")
    return {
        "layer_bytes": _whole(given, layer, MEMORY_UP_TO // 2) if layer in given else 0,
        "volume_bytes": _whole(given, volumes, MEMORY_UP_TO // 2) if volumes in given else 0,
        "is_gone": is_gone,
    }


def _whole(given: Mapping[str, Any], name: str, largest: int) -> int:
    if name not in given:
        raise RowError(name, "is missing.")
    value = given[name]
    try:
        # A fraction that somebody rounded is no reading of a counter.
        number = int(str(value) if isinstance(value, float) else value)
    except (TypeError, ValueError):
        raise RowError(name, f"{value!r} is no whole number.") from None
    if not 0 <= number <= largest:
        raise RowError(name, f"{number} is not from 0 to {largest}.")
    return number


def _interval(given: Mapping[str, Any], name: str) -> int | None:
    return _whole(given, name, INTERVAL_UP_TO_S) if name in given else None


def _choice(given: Mapping[str, Any], name: str, choices: Mapping[str, _T], default: _T) -> _T:
    if name not in given:
        return default
    try:
        return choices[str(given[name])]
    except KeyError:
        raise RowError(name, f"{given[name]!r} is none of {', '.join(choices)}.") from None


def _time_ms(given: Mapping[str, Any], name: str) -> int:
    if name not in given:
        raise RowError(name, "is missing.")
    value = given[name]
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, int) or str(value).isdecimal():
        return _whole(given, name, 2**47)
    else:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise RowError(
                name, f"{value!r} is neither a time like 2026-11-02T10:07:00Z nor ms since 1970."
            ) from None
    if moment.tzinfo is None:
        raise RowError(name, f"{value} has no time zone.")
    return to_ms(moment.astimezone(UTC))
