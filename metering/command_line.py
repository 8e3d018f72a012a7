"""What management commands have in common: arguments, answers, progress and exit statuses.

Status 0: done. 1: faults were found, or it could not be done. 2: an argument is wrong, and nothing
was done.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, Protocol
from uuid import UUID

from django.core.management.base import CommandError
from django.db import transaction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

WRONG_ARGUMENTS = 2
_MONTH = re.compile(r"(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])")


class Out(Protocol):
    """Where a command writes its answer."""

    def write(self, text: str, /) -> Any:
        """Write it."""


class WrongArgumentError(CommandError):
    """An argument is no good; the message names it and the way out. Ends with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, returncode=WRONG_ARGUMENTS)


def row_id(text: str) -> UUID:
    """Return the id of an account, a host or the like. Raises ArgumentTypeError."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not an id. Write it as in 00000000-0000-4000-8000-0000000000d0."
        ) from None


def month(text: str) -> str:
    """Return a month, YYYY-MM. Raises ArgumentTypeError."""
    if not _MONTH.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not a month. Write it as in 2026-10.")
    return text


def day(text: str) -> date:
    """Return a day. Raises ArgumentTypeError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a day. Write it as in 2026-10-31.") from None


def moment(text: str) -> datetime:
    """Return a time in UTC; without an offset it is UTC. Raises ArgumentTypeError."""
    try:
        said = datetime.fromisoformat(text)
        return said.replace(tzinfo=said.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{text!r} is not a time. Write it as in 2026-10-31T08:00Z."
        ) from None


def number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number in these bounds. It raises ArgumentTypeError."""

    def read(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,18}", text) and least <= int(text) <= most:
            return int(text)
        raise ArgumentTypeError(f"{text!r}: give a whole number from {least} to {most}.")

    return read


def add_json(parser: ArgumentParser) -> None:
    """Take --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def add_dry_run(parser: ArgumentParser) -> None:
    """Take --dry-run."""
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done, and change nothing"
    )


def write_json(out: Out, answer: Mapping[str, Any]) -> None:
    """Write one object; what JSON does not know is written as text."""
    out.write(json.dumps(answer, indent=2, default=str) + "\n")


def write_json_of_many(
    out: Out, name: str, rows: Iterable[Any], rest: Callable[[], Mapping[str, Any]]
) -> None:
    """Write one object with `rows` below `name`, each as it comes; last what `rest` returns then.

    However many rows there are, one at a time is held.
    """
    out.write(f"{{\n{json.dumps(name)}: [\n")
    between = ""
    for row in rows:
        out.write(between + json.dumps(row, default=str) + "\n")
        between = ","
    others = json.dumps(rest(), indent=2, default=str)[1:-1].strip("\n")
    out.write("]" + (f",\n{others}\n" if others else "\n") + "}\n")


@contextmanager
def rehearsal(*, is_dry: bool) -> Iterator[None]:
    """Take back whatever is written to the database meanwhile, where it is a dry run."""
    if not is_dry:
        yield
        return
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; yield what is told how much more was done.

    Nothing is written to a pipe or a file.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)

        def advance(more: int) -> None:
            bar.advance(task, more)

        yield advance
