from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.core.management import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections

from metering.partitions import make_partitions
from soulbox.staff.roles import make_groups

OWNER = "owner"
LOCK_TIMEOUT_S = 5


class Command(migrate.Command):
    """Migrate as the role that owns the tables; the application's role only uses them."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Give the application's role the use of every table to come, then migrate."""
        options["database"] = OWNER
        # Before the first query, so that a server that is unsafe or not there is one clear line.
        if not options["skip_checks"]:
            self.check(databases=[OWNER])
            options["skip_checks"] = True
        with self._short_waits():
            self._let_application_use_new_tables()
            super().handle(*args, **options)
        if options["app_label"] in {None, "", "metering"} and not options["plan"]:
            make_partitions(now=datetime.now(UTC))
        # Only a whole migration leaves every table there, and with it every right.
        if not (options["app_label"] or options["plan"]):
            make_groups(OWNER)

    @contextmanager
    def _short_waits(self) -> Iterator[None]:
        # While it waits for a table's lock, everybody else waits for that table behind it.
        owner = connections[OWNER]
        with owner.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        try:
            yield
        except OperationalError as error:
            if "lock timeout" not in str(error):
                raise
            raise CommandError(
                f"A table was in use for {LOCK_TIMEOUT_S} s. What is done is done, the migration "
                "that waited is not. Run migrate again; if it happens again, look for a long "
                "transaction in pg_stat_activity."
            ) from error
        finally:
            # The next connection has what the settings say.
            owner.close()

    def _let_application_use_new_tables(self) -> None:
        owner = connections[OWNER]
        role = owner.ops.quote_name(connections["default"].settings_dict["USER"])
        with owner.cursor() as cursor:
            # Single migrations take rights away again where rows must never change.
            cursor.execute(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}"
            )
            cursor.execute(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public "
                f"GRANT USAGE, SELECT ON SEQUENCES TO {role}"
            )
