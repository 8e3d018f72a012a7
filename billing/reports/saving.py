"""A report into a file or another stream of bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from billing.reports.catalogue import Asked, Report
from billing.reports.writing import Format, write


def save_report(report: Report, asked: Asked, form: Format, path: Path) -> None:
    """Write the report to `path`, whole or not at all. Raises OSError."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            send_report(report, asked, form, part)
            part.flush()
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def send_report(report: Report, asked: Asked, form: Format, to: IO[bytes]) -> None:
    """Write the report piece by piece."""
    to.writelines(write(report.row_type, report.rows(asked), form))
