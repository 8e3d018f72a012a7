"""Samples out of a file: CSV, JSON Lines or Parquet, a row a sample, each bad row refused alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from pyarrow import ArrowException, parquet

from metering.backfill.rows import Birth, Row, RowError, parse_row
from metering.backfill.series import INTERFACES, LIVES, STORAGE, Kind
from metering.believing import ACCEPTED_AHEAD
from metering.lives import LabelError, read_labels
from metering.models import AccountRegistration, Host, Life
from metering.period import to_ms
from metering.readings import HELD_INTERVALS
from metering.samples import Records, State, interface_id, life_id
from metering.source import ACCOUNT_LABEL, SANDBOX_LABEL, Container

ROWS_PER_CHUNK = 20_000
# Storage is read every so often unless a row says otherwise.
STORAGE_INTERVAL_S = 300


class FileError(Exception):
    """A file of samples cannot be read at all; the message says which and why."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that does not count: its number in the file, from 1, and what is wrong with it."""

    line: int
    complaint: str


@dataclass(slots=True)
class FileReader:
    """Reads one file. What was refused, and which lives are to be recorded first, adds up here."""

    path: Path
    interval_s: int
    now: datetime
    refused: list[RefusedRow] = field(default_factory=list)
    unrecorded: dict[UUID, dict[int, Container]] = field(default_factory=dict)
    _hosts: dict[str, UUID | None] = field(default_factory=dict)
    _accounts: dict[UUID, bool] = field(default_factory=dict)
    _owners: dict[int, UUID | None] = field(default_factory=dict)

    def read(self) -> Iterator[tuple[UUID, dict[str, Records]]]:
        """Yield the good rows, some at a time, by host. Raises FileError."""
        for chunk in _batched(_numbered_rows(self.path), ROWS_PER_CHUNK):
            parsed: list[tuple[int, Row]] = []
            for line, values in chunk:
                try:
                    parsed.append((line, parse_row(values)))
                except RowError as error:
                    self.refused.append(RefusedRow(line, str(error)))
            named = self._named(parsed)
            self._look_up({life for _, _, life, _ in named}, named)
            by_host: dict[UUID, list[tuple[int, Row]]] = {}
            for line, host_id, life, row in named:
                try:
                    self._check(host_id, life, row)
                except RowError as error:
                    self.refused.append(RefusedRow(line, str(error)))
                else:
                    by_host.setdefault(host_id, []).append((life, row))
            for host_id, rows in by_host.items():
                yield host_id, self._packed(rows)

    def _named(self, parsed: Sequence[tuple[int, Row]]) -> list[tuple[int, UUID, int, Row]]:
        """Return rows with their host and the number of their life; refuse unknown hosts."""
        named = []
        for line, row in parsed:
            if row.host not in self._hosts:
                self._hosts[row.host] = _find_host(row.host)
            host_id = self._hosts[row.host]
            if host_id is None:
                complaint = f"host: {row.host!r} is no registered host."
                self.refused.append(RefusedRow(line, complaint))
            else:
                named.append((line, host_id, life_id(str(host_id), row.life), row))
        return named

    def _look_up(self, lives: set[int], named: Iterable[tuple[int, UUID, int, Row]]) -> None:
        """Ask once for the lives and the accounts of a chunk that were not met before."""
        if unmet := lives - self._owners.keys():
            self._owners |= dict.fromkeys(unmet)
            self._owners |= dict(
                Life.objects.filter(pk__in=unmet).values_list("pk", "sandbox__account_id")
            )
        accounts = {row.birth.account_id for *_, row in named if row.birth is not None}
        if unmet_accounts := accounts - self._accounts.keys():
            active = AccountRegistration.objects.filter(pk__in=unmet_accounts)
            self._accounts |= dict.fromkeys(unmet_accounts, False)
            self._accounts |= dict(active.values_list("pk", "is_active"))

    def _check(self, host_id: UUID, life: int, row: Row) -> None:
        """Refuse a row whose life nobody knows; take note of one that is to be recorded."""
        if row.read_ms > to_ms(self.now + ACCEPTED_AHEAD):
            raise RowError("read_at", "is over 5 minutes ahead.")
        owner = self._owners[life]
        if owner is None and row.birth is None:
            raise RowError(
                "life",
                f"{row.life!r} is not recorded on host {row.host}. Give account_id, sandbox_id and "
                "started_at to record it.",
            )
        if owner is not None and row.birth is not None and row.birth.account_id != owner:
            raise RowError("account_id", f"the life is of account {owner}.")
        if owner is None and row.birth is not None:
            container = self._container(row, row.birth)
            known = self.unrecorded.setdefault(host_id, {}).setdefault(life, container)
            if known.labels != container.labels:
                raise RowError("account_id", "rows before say that the life is another sandbox's.")

    def _container(self, row: Row, birth: Birth) -> Container:
        if not self._accounts[birth.account_id]:
            raise RowError("account_id", f"{birth.account_id} is no open account.")
        labels = {ACCOUNT_LABEL: str(birth.account_id), SANDBOX_LABEL: birth.sandbox_id}
        try:
            read_labels(labels)
        except LabelError as error:
            raise RowError("sandbox_id", str(error)) from None
        container_id, _, started = row.life.rpartition("/")
        is_of_birth = started.isdecimal() and int(started) // 10**6 == birth.started_ns // 10**6
        if not (container_id and is_of_birth):
            raise RowError(
                "life",
                f"{row.life!r} is not recorded, and is not a container's id, a slash and "
                "started_at in ns.",
            )
        return Container(
            container_id=container_id,
            labels=labels,
            state=State.RUNNING,
            started_ns=int(started),
            finished_ns=None,
        )

    def _packed(self, rows: Sequence[tuple[int, Row]]) -> dict[str, Records]:
        return {
            LIVES.name: _records(
                LIVES,
                [
                    dict(row.sample) | self._common(life, row, row.interval_s or self.interval_s)
                    for life, row in rows
                    if row.sample
                ],
            ),
            INTERFACES.name: _records(
                INTERFACES,
                [
                    dict(row.network)
                    | self._common(life, row, row.interval_s or self.interval_s)
                    | {"interface": interface_id(life, row.interface)}
                    | {"name": row.interface.encode()}
                    for life, row in rows
                    if row.network
                ],
            ),
            STORAGE.name: _records(
                STORAGE,
                [
                    dict(row.storage)
                    | self._common(life, row, row.storage_interval_s or STORAGE_INTERVAL_S)
                    for life, row in rows
                    if row.storage
                ],
            ),
        }

    @staticmethod
    def _common(life: int, row: Row, interval_s: int) -> dict[str, Any]:
        hold_ms = interval_s * 1000 * HELD_INTERVALS
        return {"life": life, "read_ms": row.read_ms, "hold_ms": hold_ms, "missed": row.missed}


def _records(kind: Kind, values: Sequence[Mapping[str, Any]]) -> Records:
    rows = np.zeros(len(values), kind.row)
    for name in kind.row.names or ():
        if name != "padding":
            rows[name] = [value.get(name, 0) for value in values]
    return rows


def _find_host(name: str) -> UUID | None:
    try:
        by_id = Host.objects.filter(pk=UUID(name)).first()
    except ValueError:
        by_id = None
    host = by_id or Host.objects.filter(name=name).first()
    return host.pk if host else None


def _batched(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _numbered_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield a file's rows with their numbers: lines, the header counted, or Parquet's rows."""
    readers = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FileError(f"{path}: the name has to end in one of {', '.join(readers)}.")
    try:
        yield from reader(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: {error}") from error


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="more columns than the header")
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, row if isinstance(row, dict) else {"no JSON object": line[:40]}


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_PER_CHUNK):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except ArrowException as error:
        raise FileError(f"{path}: {error}") from error
