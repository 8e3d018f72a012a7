"""When both sides are compared: the task each day, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from billing.lifecycle import InvoiceStatus
from payments import tasks
from payments.models import (
    Reconciliation,
)
from payments.services.reconciling import (
    due_reconciliation,
)
from tests.local_stripe import LocalStripe
from tests.payments.month import (
    BILLED,
    CARD,
)
from tests.payments.test_collecting import status_of
from tests.payments.test_reconciling import HOUR, LATER, sdk, unpaid

pytestmark = pytest.mark.django_db


def test_a_look_is_due_once_a_day_and_begins_a_day_before_the_last() -> None:
    key = due_reconciliation(LATER)
    row = Reconciliation.objects.get()
    assert (row.pk, row.since) == (key, LATER - timedelta(days=30))
    # It is not done yet.
    assert due_reconciliation(LATER + HOUR) == key
    Reconciliation.objects.update(ended_at=LATER, reached=LATER)
    assert due_reconciliation(LATER + 23 * HOUR) is None
    following = due_reconciliation(LATER + 24 * HOUR)
    assert following is not None
    assert following != key
    assert Reconciliation.objects.get(pk=following).since == LATER - timedelta(days=1)
    # A day later it is given up.
    third = due_reconciliation(LATER + 48 * HOUR)
    assert third is not None
    assert third not in {key, following}
    assert "another took its place" in Reconciliation.objects.get(pk=following).error
    assert Reconciliation.objects.get(pk=third).since == LATER - timedelta(days=1)


def set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return now

    monkeypatch.setattr("payments.management.commands.reconcile_stripe.datetime", Clock)
    monkeypatch.setattr("payments.tasks.datetime", Clock)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, int]]:
    """Run the command at LATER; return what it printed, and its status."""
    set_clock(monkeypatch, LATER)

    def run(*arguments: str) -> tuple[str, int]:
        out = StringIO()
        try:
            call_command("reconcile_stripe", *arguments, stdout=out)
        except CommandError as error:
            return f"{out.getvalue()}{error}", error.returncode
        return out.getvalue(), 0

    return run


def test_the_command_says_what_it_found(
    stripe: LocalStripe, command: Callable[..., tuple[str, int]]
) -> None:
    stripe.set_clock(BILLED.timestamp())
    _, collection = unpaid(stripe)
    told, status = command("--since", "2026-06-01")
    assert status == 0
    assert "1 invoices, 1 payments, 0 refunds." in told
    assert "No differences are open." in told
    sdk(stripe).v1.invoices.void_invoice(str(collection.provider_id))
    told, status = command("--since", "2026-06-01T00:00+02:00")
    assert status == 1
    assert f"Invoice State Differs: {collection.provider_id}" in told
    assert "do:     Void our invoice, or collect it anew." in told
    told, status = command("--since", "2026-06-01", "--json")
    summary = json.loads(told[: told.rindex("}") + 1])
    assert status == 1
    assert summary["differences"] == 1
    assert summary["open"][0]["subject"] == collection.provider_id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time"),
        (["--since", "2027-01-01"], "in the past"),
        (["--days", "0"], "from 1 to 3650"),
    ],
)
def test_the_command_refuses_other_times(
    command: Callable[..., tuple[str, int]], arguments: list[str], message: str
) -> None:
    told, _ = command(*arguments)
    assert message in told


def test_the_command_says_what_is_missing_or_not_there(
    stripe: LocalStripe, command: Callable[..., tuple[str, int]], settings: Settings
) -> None:
    stripe.fault("reset_before", "GetEvents", times=2)
    told, status = command("--days", "1")
    assert ("Network error" in told, status) == (True, 1)
    settings.STRIPE_API_KEY = ""
    told, status = command("--days", "1")
    assert ("STRIPE_API_KEY" in told, status) == (True, 1)


def test_the_task_compares_once_a_day(stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    invoice, collection = unpaid(stripe)
    stripe.pay(str(collection.provider_id), token=CARD)
    Reconciliation.objects.create(
        started_at=LATER - 24 * HOUR,
        since=LATER - 48 * HOUR,
        reached=LATER - 24 * HOUR,
        ended_at=LATER - 24 * HOUR,
    )
    set_clock(monkeypatch, LATER)
    tasks.reconcile()
    assert status_of(invoice) == InvoiceStatus.PAID
    done = Reconciliation.objects.latest("pk")
    assert done.ended_at == LATER
    tasks.reconcile()
    assert Reconciliation.objects.latest("pk") == done


def test_the_task_without_a_provider_does_nothing(settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    tasks.reconcile()
    assert not Reconciliation.objects.exists()
