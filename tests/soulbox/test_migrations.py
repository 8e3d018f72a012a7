"""Migrations that are applied while the release before still runs, under load."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.core.management import CommandError, call_command
from django.core.management.commands.migrate import Command as DjangosCommand
from django.db import OperationalError, connections, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django_migration_linter.sql_analyser.analyser import analyse_sql_statements
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser

pytestmark = pytest.mark.django_db(databases=["default", "owner"])
OURS = {"billing", "metering", "payments", "soulbox"}
# What was made before the first release has nobody who runs the release before it.
BEFORE_THE_RULE = {
    "billing": "0034_audit_of_keys",
    "metering": "0016_lives_that_run",
    "payments": "0010_attempts_by_end",
    "soulbox": "0001_canary",
}
# What the linter's own rules leave out: what scans or locks a table for long, or is in its way.
_SLOW = {
    "reads the whole table under a lock: add it NOT VALID, and validate it in another migration": (
        r"^ALTER TABLE (?P<table>\S+) ADD CONSTRAINT .*(CHECK|FOREIGN KEY)(?!.*NOT VALID)"
    ),
    "builds an index under a lock: make the index concurrently, then add it USING INDEX": (
        r"^ALTER TABLE (?P<table>\S+) ADD CONSTRAINT .*(UNIQUE|PRIMARY KEY|EXCLUDE)"
        r"(?!.*USING INDEX)"
    ),
    "locks the table for as long as the migration takes": r"^LOCK (TABLE )?(?P<table>\S+)",
    "writes the table anew under a lock": r"^(VACUUM FULL|CLUSTER) (?P<table>\S+)",
    "changes every row in one transaction: do it in batches, by a task": (
        r"^(UPDATE|DELETE FROM) (?P<table>\S+)(?!.*\bWHERE\b)"
    ),
}
_MADE = re.compile(r"^CREATE TABLE (IF NOT EXISTS )?(\S+)")


def sql_of(migration: migrations.Migration, before: ProjectState) -> list[str]:
    """Return the statements of a migration, as `sqlmigrate` prints them."""
    owner = connections["owner"]
    with owner.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        # What has to be outside of a transaction is only written down inside the test's.
        of_the_test, owner.in_atomic_block = owner.in_atomic_block, migration.atomic
        try:
            migration.apply(before, editor, collect_sql=True)
        finally:
            owner.in_atomic_block = of_the_test
    return [line for line in editor.collected_sql if line and not line.startswith("--")]


def faults_of(statements: Sequence[str]) -> list[str]:
    """Return what is not safe beside the release before, or under load: a sentence each."""
    made = {match[2] for statement in statements if (match := _MADE.match(statement))}
    elsewhere = [one for one in statements if not any(table in one for table in made)]
    errors, _, warnings = analyse_sql_statements(PostgresqlAnalyser, list(elsewhere))
    faults = [f"{issue.code}: {issue.message}" for issue in chain(errors, warnings)]
    for statement in elsewhere:
        for fault, pattern in _SLOW.items():
            if match := re.match(pattern, statement.strip(), re.IGNORECASE | re.DOTALL):
                faults.append(f"{match['table']}: {fault}")
    return faults


def migrations_under_the_rule(loader: MigrationLoader) -> Iterator[tuple[str, str]]:
    for app, name in sorted(loader.graph.nodes):
        if app in OURS and name > BEFORE_THE_RULE[app]:
            yield app, name


def test_migrations_are_safe_while_the_release_before_runs_under_load() -> None:
    loader = MigrationLoader(connections["owner"])
    assert loader.migrated_apps >= OURS
    found = {}
    for app, name in migrations_under_the_rule(loader):
        before = loader.project_state((app, name), at_end=False)
        statements = sql_of(loader.graph.nodes[app, name], before)
        if faults := faults_of(statements):
            found[f"{app}.{name}"] = faults
    assert not found, "docs/operations.md says how to do it in steps"


NAMED = models.CheckConstraint(condition=~models.Q(name=""), name="account_has_a_name_here")
BAD: dict[str, Callable[[], list[Operation]]] = {
    "NOT_NULL": lambda: [
        migrations.AddField("account", "size", models.IntegerField(default=0)),
    ],
    "DROP_COLUMN": lambda: [migrations.RemoveField("account", "tax_id")],
    "RENAME_COLUMN": lambda: [migrations.RenameField("account", "tax_id", "vat_id")],
    "RENAME_TABLE": lambda: [migrations.AlterModelTable("account", "customer")],
    "DROP_TABLE": lambda: [migrations.DeleteModel("InvoiceEvidence")],
    "ALTER_COLUMN": lambda: [
        migrations.AlterField("account", "tax_id", models.IntegerField(null=True)),
    ],
    "ADD_UNIQUE": lambda: [
        migrations.AlterField("account", "tax_id", models.CharField(max_length=64, unique=True)),
    ],
    "CREATE_INDEX": lambda: [
        migrations.AddIndex("account", models.Index(fields=["tax_id"], name="accounts_by_tax")),
    ],
    "NOT VALID": lambda: [migrations.AddConstraint("account", NAMED)],
    "in batches": lambda: [migrations.RunSQL("UPDATE billing_account SET tax_id = 'x'")],
    "writes the table anew": lambda: [migrations.RunSQL("CLUSTER billing_account")],
    "as long as the migration": lambda: [migrations.RunSQL("LOCK TABLE billing_account")],
}
GOOD: dict[str, Callable[[], list[Operation]]] = {
    "a column that may be empty": lambda: [
        migrations.AddField("account", "size", models.IntegerField(null=True)),
    ],
    "a column that the database fills": lambda: [
        migrations.AddField("account", "size", models.IntegerField(db_default=0)),
    ],
    "an index beside the work": lambda: [
        AddIndexConcurrently("account", models.Index(fields=["tax_id"], name="accounts_by_tax")),
    ],
    "a constraint for new rows": lambda: [
        migrations.RunSQL(
            "ALTER TABLE billing_account ADD CONSTRAINT has_name CHECK (name <> '') NOT VALID"
        ),
    ],
    "a table of its own": lambda: [
        migrations.CreateModel(
            "Note",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("account", models.ForeignKey("billing.account", models.PROTECT)),
                ("text", models.TextField(unique=True)),
            ],
        ),
    ],
}


def sample(operations: list[Operation]) -> list[str]:
    concurrently = any(isinstance(one, AddIndexConcurrently) for one in operations)
    body = {"operations": operations, "atomic": not concurrently}
    migration = type("Migration", (migrations.Migration,), body)("sample", "billing")
    loader = MigrationLoader(connections["owner"])
    return faults_of(sql_of(migration, loader.project_state(loader.graph.leaf_nodes())))


@pytest.mark.parametrize("fault", BAD)
def test_an_unsafe_migration_is_found(fault: str) -> None:
    assert any(fault in found for found in sample(BAD[fault]())), fault


@pytest.mark.parametrize("what", GOOD)
def test_a_safe_migration_is_left_alone(what: str) -> None:
    assert sample(GOOD[what]()) == []


@pytest.mark.django_db(databases=["default", "owner"], transaction=True)
def test_migrate_waits_for_a_lock_only_so_long_as_others_can_wait_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(self: object, *_arguments: object, **_options: object) -> None:
        del self
        with connections["owner"].cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            [timeout] = cursor.fetchone()
            assert timeout == "5s"
        raise OperationalError("canceling statement due to lock timeout")

    monkeypatch.setattr(DjangosCommand, "handle", wait)
    with pytest.raises(CommandError, match="Run migrate again"):
        call_command("migrate")
    with connections["owner"].cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("30s",)
