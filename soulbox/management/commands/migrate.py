from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from metering.partitions import make_partitions
from soulbox.staff.roles import make_groups

OWNER = "owner"


class Command(migrate.Command):
    """Migrate as the role that owns the tables; the application's role only uses them."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Give the application's role the use of every table to come, then migrate."""
        options["database"] = OWNER
        # Before the first query, so that a server that is unsafe or not there is one clear line.
        if not options["skip_checks"]:
            self.check(databases=[OWNER])
            options["skip_checks"] = True
        self._let_application_use_new_tables()
        super().handle(*args, **options)
        if options["app_label"] in {None, "", "metering"} and not options["plan"]:
            make_partitions(now=datetime.now(UTC))
        # Only a whole migration leaves every table there, and with it every right.
        if not (options["app_label"] or options["plan"]):
            make_groups(OWNER)

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
