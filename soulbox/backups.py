"""The whole database into one file and back, with the bundled PostgreSQL's own programs.

They talk to a server of their own version or older, so this works on the embedded server and on
another; it is also the way from the one to the other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

from django.conf import settings

from soulbox.keeper import postgresql_programs

# pg_dump names it for every server, and those before PostgreSQL 17 do not know it.
UNKNOWN_TO_OLDER_SERVERS = b"SET transaction_timeout = 0;\n"
PREAMBLE_LINES = 60


class BackupError(Exception):
    """A dump or a restore did not end well; the message is the program's own."""


def dump(file: Path) -> None:
    """Write the database into the file, which its owner alone can read. Raises BackupError."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    _run("pg_dump", "--format=custom", f"--file={unfinished}", settings.DATABASE_OWNER_URL)
    unfinished.replace(file)


def restore(file: Path) -> None:
    """Fill an empty database from the file: all of it, or nothing. Raises BackupError.

    The server needs the same two roles as the one the file came from.
    """
    program = [str(postgresql_programs() / "pg_restore"), "--no-owner", "--file=-", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as reader:  # noqa: S603 - our own program
        _run(
            "psql",
            "--quiet",
            "--no-psqlrc",
            "--output=/dev/null",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            settings.DATABASE_OWNER_URL,
            script=_for_any_server(cast("IO[bytes]", reader.stdout)),
        )
    if reader.returncode != 0:
        raise BackupError(f"{file} is not a dump that pg_restore can read.")


def _for_any_server(script: IO[bytes]) -> Iterator[bytes]:
    preamble = (line for line in islice(script, PREAMBLE_LINES) if line != UNKNOWN_TO_OLDER_SERVERS)
    return chain(preamble, script)


def _run(name: str, *arguments: str, script: Iterable[bytes] = ()) -> None:
    with subprocess.Popen(  # noqa: S603 - the bundled programs
        [str(postgresql_programs() / name), *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        stdin, stderr = cast("IO[bytes]", program.stdin), cast("IO[bytes]", program.stderr)
        # It may end at an error of its own before it has read all, and says which.
        with suppress(BrokenPipeError), stdin:
            stdin.writelines(script)
        errors = stderr.read().decode(errors="replace").strip()
    if program.returncode != 0:
        raise BackupError(f"{name}: {errors}")
