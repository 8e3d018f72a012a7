"""Every management command of ours: what it refuses, and what it says of an empty database."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rich.console import Console

from metering import command_line
from metering.command_line import (
    WRONG_ARGUMENTS,
    WrongArgumentError,
    progress,
    rehearsal,
    write_json_of_many,
)
from metering.models import Host
from soulbox.celery import QUEUES

NOBODY = "00000000-0000-4000-8000-00000000dead"
OURS = ("soulbox", "payments", "billing", "metering")
READS = {"SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "DECLARE", "FETCH", "CLOSE", "SET", "SHOW"}


@dataclass(frozen=True)
class Tried:
    """How a command is tried. `wrong`: arguments and what the refusal says of them.

    `empty`: arguments that are right, what the command then says of a database with no row of
    anybody's, and whether it says so as an error. `json`: it takes --json, and answers with these
    names. `changes`: it takes --dry-run. Why it is tried elsewhere alone is said by `elsewhere`.
    """

    wrong: tuple[tuple[tuple[str, ...], str], ...] = ((("--nonsense",), "--nonsense"),)
    empty: tuple[str, ...] = ()
    says: str = ""
    fails: str = ""
    names: tuple[str, ...] = ()
    changes: bool = False
    elsewhere: str = ""


FROM_TO = ("--from", "2026-11-01T00:00Z", "--to", "2026-11-01T01:00Z")
COMMANDS: Mapping[str, Tried] = {
    "add_host": Tried(
        (
            (("h", "--id", "x"), "argument --id: 'x' is not an id"),
            (("",), "name: give it"),
            (("h" * 65,), "name: give it"),
        ),
        ("h", "--endpoint", "api:"),
        says="h ",
        names=("dry_run", "id", "name", "endpoint"),
        changes=True,
    ),
    "after_restore": Tried(
        (
            (("--number", "nine"), "--number: 'nine' is no number such as"),
            (("--days", "0"), "argument --days: '0': give a whole number from 1"),
        ),
        says="No number is known elsewhere",
        changes=True,
    ),
    "audit_usage": Tried(
        (
            (("--period", "2026"), "argument --period: '2026' is no month"),
            (("--account", NOBODY), "--account: .* is not registered"),
        ),
        says="counters of lives",
        names=("checks", "lives_left_out"),
    ),
    "backfill_usage": Tried(
        (
            (("--from", "soon", "--to", "later"), "argument --from: 'soon' is not a time"),
            ((*FROM_TO, "--account", "x"), "argument --account: 'x' is not an id"),
            (("--from", "2020-01-01", "--to", "2020-01-02"), "--from"),
        ),
        FROM_TO,
        says="0 samples read",
        names=("dry_run", "usage", "samples_read", "rows_refused"),
        changes=True,
    ),
    "canaries": Tried(
        says="billing: never",
        fails="No worker took a task",
        names=QUEUES,
    ),
    "clean_up_metering": Tried(
        says="nothing", names=("dry_run", "months", "held", "rows"), changes=True
    ),
    "collect": Tried(
        (((), "--host"), (("--host", "nobody"), "--host 'nobody': there is no such host")),
        elsewhere="runs until a signal: tests/metering/test_entry_points.py",
    ),
    "collect_invoices": Tried(
        ((("--invoice", "9"), "--invoice: there is no invoice 9"),),
        fails="STRIPE_API_KEY is not set",
        elsewhere="with a Stripe: tests/payments/test_monitoring.py",
        changes=True,
        names=("dry_run", "collections"),
    ),
    "conservation": Tried(
        (
            ((), "--invoice --month"),
            (("--month", "May"), "argument --month: 'May' is not a month"),
            (("--invoice", "9"), "--invoice: there is no invoice 9"),
        ),
        ("--month", "2026-05"),
        names=("invoices", "mismatched"),
    ),
    "demo": Tried(elsewhere="needs embedded services of its own: tests/scenarios/test_demo.py"),
    "doctor": Tried(
        says="WRONG",
        fails="are wrong",
        names=("findings", "wrong"),
    ),
    "dump": Tried(
        (((), "file"),),
        elsewhere="writes with another program: tests/soulbox/test_backups.py",
    ),
    "erase_account": Tried(
        (
            (("x",), "argument account: 'x' is not an id"),
            ((NOBODY,), "account: there is no"),
        ),
        elsewhere="of a closed account: tests/payments/test_erasing.py",
        names=("dry_run", "parts"),
        changes=True,
    ),
    "explain_invoice": Tried(
        (
            ((), "invoice"),
            (("2026-9",), "invoice: there is no invoice 2026-9"),
            (("2026-9", "--line", "0"), "argument --line: '0': give a whole number"),
        ),
        elsewhere="needs an invoice: tests/billing/test_explain.py",
        names=("lines", "invoice"),
    ),
    "generate_invoices": Tried(
        (
            (("--period", "2026-13"), "argument --period: '2026-13' is not a month"),
            (("--account", NOBODY), "--account: there is no account"),
        ),
        says="0 drafted",
        names=("dry_run", "drafted", "finalised", "waiting", "parked"),
        changes=True,
    ),
    "grant_credits": Tried(
        (((), "file"), (("/nowhere.csv",), "file: .*nowhere")),
        elsewhere="needs a file: tests/billing/test_bulk_grants.py",
        changes=True,
        names=("sha256", "rows"),
    ),
    "issue_metering_key": Tried(
        (
            (("ci",), "--host"),
            (("ci", "--host", "h", "--scope", "all"), "argument --scope: invalid choice"),
            (("ci", "--host", "h", "--account", NOBODY), "account: .* is no account"),
        ),
        ("ci", "--host", "h"),
        says="sbx_meter_",
        names=("dry_run", "name", "host", "scopes"),
        changes=True,
    ),
    "issue_operator_key": Tried(
        (((), "name"), ((" ",), "Give it a name")),
        ("cron",),
        says="sbx_op_",
        names=("dry_run", "name"),
        changes=True,
    ),
    "metering_status": Tried(names=("hosts", "problems")),
    "migrate": Tried(elsewhere="made the database of this test"),
    "process_backlog": Tried(
        (
            (("--host", "nobody"), "--host nobody: no such host"),
            (("--workers", "0"), "argument --workers: '0': give a whole number from 1"),
        ),
        says="entries before",
        names=("dry_run", "hosts"),
        changes=True,
    ),
    "reconcile_stripe": Tried(
        (
            (("--since", "soon"), "argument --since: 'soon' is not a time"),
            (("--since", "2999-01-01"), "--since: give a time in the past"),
            (("--days", "0"), "argument --days: '0': give a whole number from 1 to 3650"),
        ),
        fails="STRIPE_API_KEY is not set",
        elsewhere="with a Stripe: tests/payments/test_reconcile_command.py",
        changes=True,
        names=("dry_run", "open"),
    ),
    "remove_host": Tried(
        (((), "name"), (("nobody",), "name: there is no host nobody. There are: none")),
        elsewhere="of a host that there is: tests/metering/test_removing.py",
        names=("dry_run", "host", "running", "folded", "left", "problem"),
        changes=True,
    ),
    "replay_webhooks": Tried(
        (
            ((), "Say which"),
            (("--fetch",), "--fetch goes with --event"),
            (("--event", "evt_none"), "--event: evt_none is not stored"),
            (("--since", "soon"), "argument --since: 'soon' is not a time"),
        ),
        ("--failed",),
        says="0 events",
        names=("events", "dry_run", "not_done"),
        changes=True,
    ),
    "report": Tried(
        (
            (("nonsense",), "argument name: invalid choice"),
            (("usage", "--month", "May"), "--month: "),
            (("usage", "--month", "2026-05", "--account", "x"), "--account: "),
            (("usage", "--month", "2026-05", "--output", "/nowhere/r.csv"), "--output: "),
        ),
        ("usage", "--month", "2026-05"),
        says="account",
    ),
    "rerate": Tried(
        (
            (("2026-9",), "--reason"),
            (("2026-9", "--reason", "wrong price"), "number: there is no invoice 2026-9"),
        ),
        elsewhere="needs an invoice: tests/billing/test_rerating.py",
        changes=True,
        names=("differs", "lines"),
    ),
    "reset": Tried(elsewhere="removes what the tests stand on: tests/soulbox/test_reset.py"),
    "reset_two_factor": Tried(
        (((), "username"), (("nobody",), "username: there is no user nobody")),
        elsewhere="needs a user: tests/soulbox/staff/test_second_factor.py",
        changes=True,
        names=("dry_run", "was_set_up"),
    ),
    "restore": Tried(
        (((), "file"),),
        elsewhere="reads with another program: tests/soulbox/test_backups.py",
    ),
    "retry_payment": Tried(
        (
            (("2026-9",), "--reason"),
            (("--reason", "x"), "Say which"),
            (("2026-9", "--reason", "x"), "invoice: there is no invoice 2026-9"),
            (("--account", NOBODY, "--reason", "x"), "--account: there is no account"),
            (("--period", "2026", "--reason", "x"), "argument --period: '2026' is not a month"),
            (("--period", "2026-05", "--reason", " "), "--reason: say why"),
            (("--period", "2026-05", "--reason", "x", "--by", "eve"), "--by: eve is nobody"),
        ),
        ("--period", "2026-05", "--reason", "a new card"),
        says="No payment of these failed.",
        names=("invoices", "dry_run", "refused"),
        changes=True,
    ),
    "revoke_operator_key": Tried(
        (((), "name"), (("nobody",), "There is no operator key named nobody")),
        elsewhere="needs a key: tests/billing/test_operator_keys.py",
        changes=True,
        names=("dry_run", "name"),
    ),
    "rotate_keys": Tried(
        (
            (("--metering-key", "x"), "argument --metering-key: 'x': give a whole number"),
            (("--metering-key", "7"), "key: 7 is no metering key"),
            (("--operator-key", "cron"), "There is no operator key named cron"),
            (("--api-key", "7"), "API key: 7 is none that works"),
            (("--webhook-endpoint", NOBODY), "webhook endpoint: there is none"),
            (("--operator-key", "cron", "--overlap-hours", "200"), "argument --overlap-hours"),
        ),
        says="SECRET_KEY: 1",
        names=("secrets",),
        changes=True,
    ),
    "run": Tried(elsewhere="runs until a signal: tests/soulbox/test_run.py"),
    "settings_reference": Tried(
        empty=("--check",), elsewhere="writes two files of the repository; make lint runs it"
    ),
    "summarise_usage": Tried(
        (
            ((), "account, first, last"),
            ((NOBODY, "May", "2026-05-01"), "argument first: 'May' is not a day"),
            ((NOBODY, "2026-05-02", "2026-05-01"), "last: 2026-05-01 is before 2026-05-02"),
            ((NOBODY, "2000-05-02", "2026-05-01"), "last: give at most"),
            ((NOBODY, "2026-05-01", "2026-05-01"), "account: .* is not registered"),
        ),
        elsewhere="needs an account: tests/metering/test_summaries.py",
        changes=True,
        names=("rows_changed",),
    ),
    "usage_report": Tried(
        (
            (("--by", "hour"), "argument --by: invalid choice"),
            (("--month", "May"), "--month: "),
            ((), "--month: "),
        ),
        ("--month", "2026-05"),
        says="account",
    ),
    "usage_spikes": Tried(
        (
            (("--day", "May"), "argument --day: 'May' is not a day"),
            (("--meter", "heat"), "argument --meter"),
        ),
        says="No account stands out",
        names=("day", "spikes"),
    ),
    "what_if": Tried(
        (
            ((), "--months"),
            (("--months", "0"), "argument --months: '0': give a whole number"),
            (("--months", "1", "--plan", "nope"), "--plan nope: there is no such plan"),
            (("--months", "1", "--account", "x"), "argument --account: 'x' is not an id"),
        ),
        ("--months", "1"),
        says="No account has a closed period",
        names=("months", "accounts", "totals"),
    ),
}
TRIED_HERE = {name: tried for name, tried in COMMANDS.items() if not tried.elsewhere}


def run(name: str, *arguments: str) -> str:
    """Return what a command writes; some write bytes to the process's own output."""
    out = StringIO()
    written = BytesIO()
    real, sys.stdout = sys.stdout, TextIOWrapper(written, encoding="utf-8")
    try:
        call_command(name, *arguments, stdout=out, stderr=StringIO())
        sys.stdout.flush()
        return out.getvalue() + written.getvalue().decode()
    finally:
        sys.stdout = real


def parser_of(name: str) -> dict[str, Any]:
    command = load_command_class(get_commands()[name], name)
    assert isinstance(command, BaseCommand)
    return command.create_parser("manage.py", name)._option_string_actions


def test_every_command_of_ours_is_tried() -> None:
    ours = {name for name, app in get_commands().items() if app in OURS}
    assert ours == set(COMMANDS)
    assert {config.name for config in apps.get_app_configs() if config.name in OURS} == set(OURS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_what_its_row_says(name: str) -> None:
    options, tried = parser_of(name), COMMANDS[name]
    assert ("--dry-run" in options) == tried.changes
    if tried.names:
        assert "--json" in options
    command = load_command_class(get_commands()[name], name)
    assert isinstance(command, BaseCommand)
    assert command.help.endswith(".")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        pytest.param(name, arguments, says, id=f"{name} {' '.join(arguments)}")
        for name, tried in COMMANDS.items()
        for arguments, says in tried.wrong
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_done(
    name: str, arguments: tuple[str, ...], says: str
) -> None:
    with (
        CaptureQueriesContext(connection) as queries,
        pytest.raises(CommandError, match=says) as refused,
    ):
        run(name, *arguments)
    # What the parser refuses ends with 2 as well, where the command is run by itself.
    was_parsed = not str(refused.value).startswith("Error: ")
    assert isinstance(refused.value, WrongArgumentError) == was_parsed
    if was_parsed:
        assert refused.value.returncode == WRONG_ARGUMENTS
    assert {query["sql"].split()[0] for query in queries.captured_queries} <= READS


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
@pytest.mark.parametrize("name", TRIED_HERE)
def test_a_command_says_what_an_empty_database_has(name: str) -> None:
    tried = COMMANDS[name]
    if tried.fails:
        with pytest.raises(CommandError, match=tried.fails):
            run(name, *tried.empty)
        return
    assert tried.says in run(name, *tried.empty)


@pytest.mark.django_db(transaction=True, databases=["default", "owner"])
@pytest.mark.parametrize("name", [name for name, tried in TRIED_HERE.items() if tried.names])
def test_a_command_answers_programs_with_one_object(name: str) -> None:
    tried, out = COMMANDS[name], StringIO()
    arguments = [*tried.empty, "--json", *(["--dry-run"] if tried.changes else [])]
    if tried.fails:
        with pytest.raises(CommandError, match=tried.fails):
            call_command(name, *arguments, stdout=out, stderr=StringIO())
    else:
        call_command(name, *arguments, stdout=out, stderr=StringIO())
    answer = json.loads(out.getvalue())
    assert set(tried.names) <= set(answer)
    if "dry_run" in answer:
        assert answer["dry_run"]


def rows_by_table() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, n_tup_ins FROM pg_stat_xact_user_tables WHERE n_tup_ins > 0"
        )
        written = [table for table, _ in cursor.fetchall()]
        found = {}
        for table in written:
            cursor.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608 - names of our own tables
            found[table] = cursor.fetchone()[0]
    return found


@pytest.mark.django_db
@pytest.mark.parametrize("name", [name for name, tried in TRIED_HERE.items() if tried.changes])
def test_a_dry_run_changes_nothing(name: str) -> None:
    before = rows_by_table()
    run(name, *COMMANDS[name].empty, "--dry-run")
    after = rows_by_table()
    assert {table: count for table, count in after.items() if count != before.get(table, 0)} == {}


@pytest.mark.django_db
def test_a_rehearsal_takes_everything_back() -> None:
    for is_dry, kept in ((True, 0), (False, 1)):
        with rehearsal(is_dry=is_dry):
            Host.objects.create(id=uuid4(), name="h", endpoint="api:", registered_at=timezone.now())
        assert Host.objects.filter(name="h").count() == kept


def test_many_rows_are_one_object() -> None:
    cases: list[tuple[list[Any], dict[str, Any]]] = [
        ([], {}),
        ([1], {}),
        ([{"a": 1}, "b"], {"n": 2, "more": {"x": []}}),
    ]
    for rows, rest in cases:
        out = StringIO()
        write_json_of_many(out, "rows", iter(rows), rest.copy)
        assert json.loads(out.getvalue()) == {"rows": rows, **rest}


def test_a_bar_is_shown_on_a_terminal_and_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_terminal in (True, False):
        out = StringIO()

        def console(*, stderr: bool, out: StringIO = out, now: bool = is_terminal) -> Console:
            assert stderr
            return Console(file=out, force_terminal=now, width=100)

        monkeypatch.setattr(command_line, "Console", console)
        with progress("invoices", 3) as advance:
            advance(3)
        assert ("invoices" in out.getvalue()) == is_terminal
        assert ("3/3" in out.getvalue()) == is_terminal


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (command_line.moment, "0001-01-01T00:00+14:00"),
        (command_line.month, "0000-01"),
        (command_line.month, "２０２６-01"),
        (command_line.number(1, 5), "1e1"),
        (command_line.number(1, 5), "9" * 5000),
        (command_line.day, "2026-02-30"),
        (command_line.row_id, "7" * 33),
    ],
)
def test_an_argument_that_cannot_be_read_is_refused(
    read: Callable[[str], object], text: str
) -> None:
    with pytest.raises(ArgumentTypeError):
        read(text)


def test_paths_named_in_the_rows_are_there() -> None:
    for tried in COMMANDS.values():
        if "tests/" in tried.elsewhere:
            assert Path(tried.elsewhere.partition(": ")[2]).exists(), tried.elsewhere
