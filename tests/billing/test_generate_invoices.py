"""The billing run by command and by an operator's request: the sweep's own service."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account, Invoice, InvoiceLine
from billing.money import Money
from billing.rating import RatedLine
from billing.services import statements
from billing.statement import PeriodFacts, Statement, state_period
from metering.meters import Meter
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    NOON,
    open_account,
    read_streams_until,
    record_usage,
)
from tests.problems import errors_of

pytestmark = pytest.mark.django_db
URL = "/admin/generate-invoices"


@pytest.fixture
def accounts() -> list[Account]:
    """Ada used 100 and Bob 200 CPU seconds in May; nothing is unread."""
    made = [open_account("Ada"), open_account("Bob")]
    for number, account in enumerate(made, start=1):
        record_usage(account.pk, cpu_s=number * 10**6)
    read_streams_until(AFTER_MAY)
    return made


@pytest.fixture
def after_may(set_clock: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(AFTER_MAY)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return AFTER_MAY

    monkeypatch.setattr("billing.management.commands.generate_invoices.datetime", Clock)


@pytest.fixture
def post() -> Callable[..., Any]:
    key = services.issue_operator_key(name="night shift", now=NOON).key

    def send(body: object = None, *, bearer: str = key) -> Any:
        return Client().post(
            URL,
            json.dumps(body or {}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {bearer}"},
        )

    return send


def run(*arguments: str) -> str:
    told = StringIO()
    call_command("generate_invoices", *arguments, stdout=told)
    return told.getvalue()


@pytest.mark.usefixtures("accounts", "after_may")
def test_the_command_drafts_and_finalises_and_may_be_repeated() -> None:
    first = json.loads(run("--json"))
    assert (first["drafted"], first["finalised"], first["totals"]) == (2, 2, {"USD": "36.00"})
    assert not first["has_more"]
    assert set(Invoice.objects.values_list("number", flat=True)) == {"2026-000001", "2026-000002"}
    reasons = set(Invoice.objects.values_list("transitions__reason", flat=True))
    assert reasons == {"Billing run by command"}
    again = json.loads(run("--json"))
    assert (again["drafted"], again["finalised"]) == (0, 0)
    assert Invoice.objects.count() == 2


@pytest.mark.usefixtures("accounts", "after_may")
def test_a_rehearsal_tells_the_totals_and_writes_nothing() -> None:
    assert run("--dry-run") == "2 invoices to draft: 36.00 USD.\n"
    assert not Invoice.objects.exists()
    assert json.loads(run("--dry-run", "--json"))["totals"] == {"USD": "36.00"}


@pytest.mark.usefixtures("after_may")
def test_a_run_is_about_the_accounts_and_months_that_were_named(accounts: list[Account]) -> None:
    assert "0 drafted" in run("--period", "2026-04")
    assert "1 drafted, 1 finalised" in run("--period", "2026-05", "--account", str(accounts[1].pk))
    assert Invoice.objects.get().account == accounts[1]


@pytest.mark.usefixtures("after_may")
def test_a_run_says_who_waits_and_who_is_parked(accounts: list[Account]) -> None:
    Account.objects.filter(pk=accounts[0].pk).update(currency="EUR")  # has no prices
    said = json.loads(run("--json"))
    [parked] = said["parked"]
    assert parked["account"] == str(accounts[0].pk)
    assert parked["reason"].startswith("UsageUnpricedError")
    assert (said["finalised"], said["parked_count"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--period", "2026-13"], "'2026-13' is not a month"),
        (["--period", "May"], "'May' is not a month"),
        (["--account", "ada"], "'ada' is not an id"),
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=f"{arguments[0]}.*{message}"):
        run(*arguments)


@pytest.mark.usefixtures("accounts", "after_may")
def test_an_operators_request_runs_it_in_the_operators_name(post: Callable[..., Any]) -> None:
    assert post({"dry_run": True}).json()["totals"] == {"USD": "36.00"}
    answer = post({"period": "2026-05"})
    assert (answer.status_code, answer.json()["finalised"]) == (200, 2)
    reasons = set(Invoice.objects.values_list("transitions__reason", flat=True))
    assert reasons == {"Billing run by operator key night shift"}
    assert post().json()["drafted"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"period": "2026-5"}, "period"),
        ({"accounts": ["ada"]}, "accounts"),
        ({"dry_run": 7}, "dry_run"),
    ],
)
def test_a_bad_request_names_its_field(post: Callable[..., Any], body: Any, field: str) -> None:
    answer = post(body)
    assert answer.status_code == 400
    assert [name.split(".")[0] for name in errors_of(answer)] == [field]


@pytest.mark.usefixtures("accounts", "after_may")
def test_only_an_operators_key_runs_it(accounts: list[Account], post: Callable[..., Any]) -> None:
    customers = services.issue_api_key(accounts[0].pk, name="ci", now=NOON).key
    assert post(bearer=customers).status_code == 401
    assert post(bearer="").status_code == 401
    assert Client().post(URL).status_code == 401
    assert not Invoice.objects.exists()


def test_a_request_does_so_much_and_says_that_there_is_more(
    accounts: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.services.billing_run.ACCOUNTS_A_BATCH", 1)
    rehearsed = services.rehearse_invoices(services.Scope(), now=AFTER_MAY, batches=1)
    assert (rehearsed.drafted, rehearsed.has_more) == (1, True)
    rehearsed = services.rehearse_invoices(services.Scope(), now=AFTER_MAY, batches=2)
    assert (rehearsed.drafted, rehearsed.has_more) == (2, False)
    first = services.generate_invoices(services.Scope(), now=AFTER_MAY, batches=1)
    assert (first.drafted, first.finalised, first.has_more) == (1, 1, True)
    second = services.generate_invoices(services.Scope(), now=AFTER_MAY, batches=3)
    assert (second.drafted, second.finalised, second.has_more) == (1, 1, False)
    assert {invoice.account for invoice in Invoice.objects.all()} == set(accounts)


def test_a_run_goes_on_after_a_batch_that_was_done_account_by_account(
    accounts: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    services.draft_due_invoices(AFTER_MAY)
    first = Invoice.objects.order_by("pk")[0]
    used = 10**15 * (accounts.index(first.account) + 1)

    def fail_for_first(facts: PeriodFacts) -> Statement:
        if any(span.usage.get(Meter.CPU) == used for span in facts.usage):
            raise RuntimeError("Nobody expected this.")
        return state_period(facts)

    monkeypatch.setattr("billing.services.billing_run.ACCOUNTS_A_BATCH", 1)
    monkeypatch.setattr("billing.services.finalising.state_period", fail_for_first)
    report = services.generate_invoices(services.Scope(), now=AFTER_MAY)
    assert (report.finalised, report.has_more) == (1, False)
    assert [account_id for account_id, _ in report.parked] == [first.account_id]


def test_fees_far_above_the_accounts_own_wait_for_a_person(accounts: list[Account]) -> None:
    services.generate_invoices(services.Scope(), now=AFTER_MAY)
    ada = accounts[0]
    # 12.00 in May; ten times that is below the floor, and more is not.
    record_usage(ada.pk, JUNE.start, cpu_s=90 * 10**6)
    end = JUNE.end + (AFTER_MAY - JUNE.start)
    read_streams_until(end)
    report = services.generate_invoices(services.Scope((ada.pk,)), now=end)
    [(parked, reason)] = report.parked
    assert parked == ada.pk
    assert reason.startswith("SafetyBoundError: The fees from 2026-06-01 come to 1080.0")
    draft = Invoice.objects.get(account=ada, status="draft")
    services.accept_amount(draft.pk)
    assert services.generate_invoices(services.Scope(), now=end).finalised == 1
    draft.refresh_from_db()
    assert (draft.status, draft.usage_fee) == ("pending", 1080)


def test_an_invoice_that_does_not_add_up_parks_its_account_alone(
    accounts: list[Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = statements._usage_line

    def a_cent_more(line: RatedLine, discount: Money) -> InvoiceLine:
        row = made(line, discount)
        if line.quantity == 10**15:  # Ada's
            row.amount += Decimal("0.01")
        return row

    services.draft_due_invoices(AFTER_MAY)
    with monkeypatch.context() as patched:
        patched.setattr(statements, "_usage_line", a_cent_more)
        assert services.finalise_due_invoices(AFTER_MAY) == 1
    ada, bob = (Account.objects.get(pk=account.pk) for account in accounts)
    assert ada.parked_reason == (
        "NotConservedError: usage_fee: is 12.00, should be 12.01; line 1: is 12.01, should be 12.00"
    )
    assert ada.open_period_start < bob.open_period_start
    services.unpark_account(ada.pk)
    assert services.finalise_due_invoices(AFTER_MAY) == 1
    assert [i.number for i in Invoice.objects.order_by("number")] == ["2026-000001", "2026-000002"]


def test_an_operators_key_is_taken_so_often_a_minute_and_another_still(
    post: Callable[..., Any], settings: Settings
) -> None:
    # Keys of another run's database have the same ids.
    cache.clear()
    settings.API_CALLS_A_MINUTE = 2
    answers = [post({"dry_run": True}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2]["Retry-After"]) <= 60
    other = services.issue_operator_key(name="day shift", now=NOON).key
    assert post({"dry_run": True}, bearer=other).status_code == 200
