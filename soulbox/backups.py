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
# Ids that were given out after the dump live on elsewhere: in links, at the payment provider, in
# what customers were sent. None of them is given again. A sequence too short for it is left alone.
IDS_AHEAD = 1_000_000
_AFTERWARDS = """
DO $after$
DECLARE
    ids record;
    ahead CONSTANT bigint := %s;
BEGIN
    FOR ids IN SELECT format('%I.%I', schemaname, sequencename) AS name, last_value AS last
                 FROM pg_catalog.pg_sequences
                WHERE schemaname = 'public' AND max_value > 100 * ahead LOOP
        PERFORM pg_catalog.setval(ids.name, coalesce(ids.last, 0) + ahead);
    END LOOP;
    IF pg_catalog.to_regclass('public.payments_restoration') IS NOT NULL THEN
        INSERT INTO public.payments_restoration (restored_at) VALUES (pg_catalog.now());
    END IF;
END
$after$;
"""
# What is cut off must not be committed as if it were all.
_CUT_OFF = b"DO $$ BEGIN RAISE EXCEPTION 'The dump cannot be read to its end.'; END $$;\n"


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

    The server needs the same two roles as the one the file came from. Marks the database as
    `mark_restored` does.
    """
    program = [str(postgresql_programs() / "pg_restore"), "--no-owner", "--file=-", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as reader:  # noqa: S603 - our own program
        try:
            _run(
                "psql",
                "--quiet",
                "--no-psqlrc",
                "--output=/dev/null",
                "--single-transaction",
                "--set=ON_ERROR_STOP=1",
                settings.DATABASE_OWNER_URL,
                script=_for_any_server(reader),
            )
        except BackupError:
            # One that was told to stop reading had no fault of its own.
            if (reader.poll() or 0) > 0:
                raise BackupError(f"{file} is not a whole dump that pg_restore can read.") from None
            raise


def mark_restored() -> None:
    """Say that the database was put back to an earlier state: what is in it may be behind.

    What was asked of the payment provider since is looked for there before it is asked again, and
    no id is given twice. `restore` does this by itself. To repeat it does no harm. Raises
    BackupError.
    """
    _run(
        "psql",
        "--quiet",
        "--no-psqlrc",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        settings.DATABASE_OWNER_URL,
        script=[_afterwards()],
    )


def _for_any_server(reader: subprocess.Popen[bytes]) -> Iterator[bytes]:
    script = cast("IO[bytes]", reader.stdout)
    preamble = (line for line in islice(script, PREAMBLE_LINES) if line != UNKNOWN_TO_OLDER_SERVERS)
    yield from chain(preamble, script)
    yield _CUT_OFF if reader.wait() else _afterwards()


def _afterwards() -> bytes:
    return _AFTERWARDS.replace("%s", str(IDS_AHEAD)).encode()


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
