from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import transaction

from billing import services
from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    Invoice,
    InvoiceLine,
    NumberSeries,
    Subscription,
)
from billing.services import subscription_events, subscriptions
from metering.models import AccountRegistration
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    credits_left,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)
from tests.races.test_caps import meet_before
from tests.races.test_members import without_a_lock
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def test_ten_processes_drafting_one_period_give_one_invoice() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    statuses = run_at_once(lambda _: services.draft_invoice(account.pk, period=MAY, now=MAY.end))
    assert statuses == [0] * WORKERS
    assert Invoice.objects.count() == 1
    assert InvoiceLine.objects.count() == 4


def test_ten_sweeps_at_once_draft_each_account_once() -> None:
    for number in range(30):
        record_usage(open_account(str(number), plan_code="team").pk, cpu_s=10**6)
    assert run_at_once(lambda _: services.draft_due_invoices(MAY.end)) == [0] * WORKERS
    # Accounts that another sweep held are left to it, so one more finds what was left.
    services.draft_due_invoices(MAY.end)
    assert Invoice.objects.count() == Account.objects.count() == 30
    assert InvoiceLine.objects.count() == 60


def look_then_write(account_id: UUID) -> None:
    """What drafting would be without the lock, on rows that no constraint is about."""
    if not Invoice.objects.filter(account_id=account_id).exists():
        time.sleep(0.05)  # as long as computing the figures takes
        Invoice.objects.create(
            account_id=account_id,
            status=Invoice.Status.VOID,
            period_start=MAY.start,
            period_end=MAY.end,
            currency="USD",
            drafted_at=NOON,
            computed_at=NOON,
            finalise_after=MAY.end,
        )


def test_control_without_lock_and_constraint_there_are_several_invoices() -> None:
    account = open_account()
    assert run_at_once(lambda _: look_then_write(account.pk)) == [0] * WORKERS
    assert Invoice.objects.count() > 1


def test_ten_processes_finalising_one_invoice_use_credits_and_number_once() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    invoice = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    statuses = run_at_once(lambda _: services.finalise_invoice(invoice.pk, now=AFTER_MAY))
    assert statuses == [0] * WORKERS
    assert Invoice.objects.get().number == "2026-000001"
    assert NumberSeries.objects.get().last_number == 1
    assert list(CreditEntry.objects.values_list("kind", "amount")) == [
        ("grant", 100),
        ("use", Decimal("-0.27")),
        ("expire", Decimal("-99.73")),
    ]


def spend_without_lock(account_id: UUID, invoice_id: int) -> None:
    """What using credits would be without the account's lock: look, then spend."""
    account = Account.objects.get(pk=account_id)
    if credits_left(account, MAY).amount >= 100:
        time.sleep(0.05)
        grant = CreditGrant.objects.get()
        CreditEntry.objects.create(
            grant=grant, kind="use", amount=-100, invoice_id=invoice_id, recorded_at=NOON
        )


def test_control_without_the_lock_credits_are_spent_more_than_once() -> None:
    account = open_account(plan_code="professional")
    others = [open_account(f"{number}") for number in range(WORKERS)]
    invoices = [services.draft_invoice(o.pk, period=MAY, now=NOON).pk for o in others]
    run_at_once(lambda number: spend_without_lock(account.pk, invoices[number]))
    assert credits_left(account, MAY).amount < 0


class _CrashError(Exception):
    """Stands for whatever fails after an invoice was numbered."""


def finalise_or_crash(number: int, invoice_id: int) -> None:
    with contextlib.suppress(_CrashError), transaction.atomic():
        services.finalise_invoice(invoice_id, now=AFTER_MAY)
        if number % 3 == 0:
            raise _CrashError


def test_numbers_given_at_once_have_no_gap_even_when_some_roll_back() -> None:
    drafts = []
    for number in range(WORKERS):
        account = open_account(str(number))
        record_usage(account.pk, cpu_s=10**6)
        drafts.append(services.draft_invoice(account.pk, period=MAY, now=MAY.end).pk)
    read_streams_until(AFTER_MAY)
    statuses = run_at_once(lambda number: finalise_or_crash(number, drafts[number]))
    assert statuses == [0] * WORKERS
    numbers = Invoice.objects.exclude(number=None).order_by("number")
    assert list(numbers.values_list("number", flat=True)) == [
        f"2026-{number:06d}" for number in range(1, 7)
    ]


def test_two_plans_chosen_at_once_leave_one_active_subscription() -> None:
    account = open_account()
    plans = ("professional", "team")
    times = [datetime(2026, 5, 2, 0, 0, number, tzinfo=UTC) for number in range(WORKERS)]

    def choose(number: int) -> None:
        # Refused when a later choice was quicker.
        with contextlib.suppress(services.SubscriptionRefusedError):
            services.subscribe(account.pk, plan_code=plans[number % 2], now=times[number])

    assert run_at_once(choose) == [0] * WORKERS
    assert Subscription.objects.filter(expires_at=None).count() == 1
    balance = credits_left(account, MAY).amount
    assert 0 < balance < 300


def test_without_the_accounts_lock_two_choose_and_one_of_them_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = open_account()
    for module in (subscriptions, subscription_events):
        monkeypatch.setattr(module, "lock_account", without_a_lock)
    meet_before(monkeypatch, subscriptions, "_drop_changes_to_come")

    def choose(number: int) -> None:
        plan = ("professional", "team")[number]
        services.subscribe(account.pk, plan_code=plan, now=NOON)

    assert sorted(run_at_once(choose, workers=2)) == [0, 1]


def test_two_workers_opening_the_same_account_open_one() -> None:
    account_id = UUID("11111111-1111-4111-8111-111111111111")
    statuses = run_at_once(
        lambda _: services.open_account(name="Ada", now=NOON, account_id=account_id)
    )
    assert statuses == [0] * WORKERS
    assert Account.objects.get().pk == AccountRegistration.objects.get().account_id
