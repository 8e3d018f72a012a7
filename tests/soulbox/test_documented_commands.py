"""Commands in the documents are there, and take what the documents give them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand

from metering.services import register_host
from tests.billing.usage import OPENED, bill, open_account, record_usage

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_COMMAND = re.compile(r"manage\.py ([a-z_0-9]+)([^`\n]*)")
SOMEBODY = "00000000-0000-4000-8000-0000000000d0"
# What stands in the documents for what a reader puts there.
STANDS_FOR = {
    **dict.fromkeys(("ACCOUNT", "ID", "UUID"), SOMEBODY),
    **dict.fromkeys(("NUMBER", "INVOICE"), "2026-000001"),
    **dict.fromkeys(("FIRST", "LAST", "DAY", "START", "END"), "2026-05-10"),
    **dict.fromkeys(("TIME", "ISO"), "2026-05-10T00:00Z"),
    **dict.fromkeys(("HOST", "NAME", "USERNAME", "FILE", "WHY", "DIR", "PORT"), "drill"),
    "URL": "unix:///var/run/docker.sock",
    "YYYY-MM": "2026-05",
    "…": "2026-05-10T00:00Z",
}
# They only look, whatever stands in the database. Not here: what needs a Stripe, and `doctor` and
# `canaries`, which tell of processes that a test does not have (tests/soulbox/test_doctor.py).
LOOK = {
    "audit_usage",
    "conservation",
    "explain_invoice",
    "metering_status",
    "report",
    "usage_report",
    "usage_spikes",
    "what_if",
}


def named() -> Iterator[tuple[str, str, str]]:
    """Yield document, command and the arguments that it is shown with, each once."""
    seen = set()
    for document in DOCUMENTS:
        for name, rest in _COMMAND.findall(document.read_text()):
            found = (document.name, name, arguments(rest))
            if found[1:] == ("report", "drill --month 2026-05"):
                found = (document.name, name, "usage --month 2026-05")
            if found not in seen:
                seen.add(found)
                yield found


def arguments(text: str) -> str:
    """Return arguments as a shell would have them: of what may be left out, the first."""
    text = re.sub(r"\[([^]|]*)(\|[^]]*)?\]", r"\1", text)
    text = re.split(r"\s#|\s\||[;:,.]\s|[;:,.]$|\)|\s>|\s--?$|(?<=\S)\s{2,}", text)[0]
    for word, sample in STANDS_FOR.items():
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", sample, text)
    # Keys of programs have numbers.
    text = re.sub(rf"(--(?:api|metering)-key) {SOMEBODY}", r"\1 7", text)
    return " ".join(text.split())


def command(name: str) -> BaseCommand:
    found = load_command_class(get_commands()[name], name)
    assert isinstance(found, BaseCommand)
    return found


SHOWN = list(named())


def test_the_runbook_and_others_show_commands() -> None:
    documents = {document for document, _, _ in SHOWN}
    assert {"runbook.md", "backups.md", "operations.md", "README.md"} <= documents
    assert {name for _, name, _ in SHOWN} >= LOOK


@pytest.mark.parametrize(("document", "name", "given"), SHOWN)
def test_a_command_that_is_shown_takes_its_arguments(document: str, name: str, given: str) -> None:
    assert name in get_commands(), document
    if not given:
        # It is only spoken of.
        return
    parser = command(name).create_parser("manage.py", name)
    try:
        parser.parse_args(shlex.split(given))
    except CommandError as error:
        pytest.fail(f"{document}: {name} {given}: {error}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "given"),
    sorted({(name, given) for _, name, given in SHOWN if name in LOOK and given}),
)
def test_a_command_that_is_shown_runs(name: str, given: str, tmp_path: Path) -> None:
    account = open_account(name="Ada", plan_code="team")
    record_usage(account.pk, cpu_s=4_000_000)
    bill(account)
    register_host(
        host_id=account.pk, name=f"host of {account.pk}", endpoint="simulator:", now=OPENED
    )
    if name in {"report", "usage_report"}:
        # They write past Django's own output.
        given = f"{given.removesuffix('--output drill')} --output {tmp_path / 'report'}"
    words = [word if word != SOMEBODY else str(account.pk) for word in shlex.split(given)]
    words = [re.sub(r"^\d{4}-\d{6}$", f"{datetime.now(UTC):%Y}-000001", word) for word in words]
    out = StringIO()
    try:
        call_command(name, *words, stdout=out, stderr=StringIO())
    except CommandError as error:
        # What it looked at is not in order: of made-up rows that may be.
        if not re.search(r"not add up|no such price book", str(error)):
            raise
        return
    assert out.getvalue() or list(tmp_path.iterdir())
