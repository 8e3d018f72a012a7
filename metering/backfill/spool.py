"""Samples on disk, apart by host and by part of its lives, so that memory holds one part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import numpy as np

from metering.backfill.series import KINDS, in_order
from metering.samples import Records
from metering.source import Container

PARTS = 64


@dataclass(slots=True)
class Spool:
    """Rows of every kind, in files below `folder`, and the lives that are not recorded yet.

    `read` counts what was put in, `outside` the samples that are not of the range.
    """

    folder: Path
    read: int = 0
    outside: int = 0
    hosts: set[UUID] = field(default_factory=set)
    unrecorded: dict[UUID, dict[int, Container]] = field(default_factory=dict)

    def put(self, host_id: UUID, rows: Mapping[str, Records]) -> None:
        """Add rows, by the name of their kind."""
        for kind in KINDS:
            of_kind = rows.get(kind.name)
            if of_kind is None or not len(of_kind):
                continue
            self.hosts.add(host_id)
            self.read += len(of_kind)
            parts = of_kind["life"] % PARTS
            for part in np.unique(parts).tolist():
                with self._file(host_id, part, kind.name).open("ab") as file:
                    of_kind[parts == part].tofile(file)

    def parts(self) -> Iterator[tuple[UUID, dict[str, Records]]]:
        """Yield the rows of each part of each host's lives, in order, by the name of the kind."""
        for host_id in sorted(self.hosts):
            for part in range(PARTS):
                rows = {
                    kind.name: in_order(kind, np.fromfile(file, kind.row))
                    if (file := self._file(host_id, part, kind.name)).exists()
                    else np.empty(0, kind.row)
                    for kind in KINDS
                }
                if any(len(of_kind) for of_kind in rows.values()):
                    yield host_id, rows

    def _file(self, host_id: UUID, part: int, kind: str) -> Path:
        return self.folder / f"{host_id}-{part}-{kind}"
