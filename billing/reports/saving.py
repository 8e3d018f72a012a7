"""A report into a file or another stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from billing.reports.catalogue import Asked, Report
from billing.reports.rows import Row
from billing.reports.writing import Format, write


def save_report(
    report: Report,
    asked: Asked,
    form: Format,
    path: Path,
    *,
    watch: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the report to `path`, whole or not at all. `watch` is told of each row.

    Raises OSError.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            rows = _watched(report.rows(asked), watch)
            part.writelines(write(report.row_type, rows, form))
            part.flush()
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def send_report(report: Report, asked: Asked, form: Format, to: IO[bytes]) -> None:
    """Write the report piece by piece."""
    to.writelines(write(report.row_type, report.rows(asked), form))


def _watched(rows: Iterable[Row], watch: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        yield row
        watch(1)
