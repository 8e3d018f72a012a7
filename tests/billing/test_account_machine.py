"""An account driven through whatever may be asked of it, billed at every period's end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise

import pytest
from django.db import transaction
from django.db.models import Sum
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import services
from billing.credits import CreditKind
from billing.facts import period_containing
from billing.fees import MONTHS_OF_A_YEAR, Interval
from billing.models import Account, CreditGrant, Invoice, InvoiceLine, Plan, Subscription
from billing.periods import add_months
from billing.queries import preview_period
from billing.statement import Statement
from billing.totals import Tax
from metering.period import Period, window_start
from tests.billing.usage import GRACE, OPENED, read_streams_until, record_usage

REFUSALS = (
    services.SubscriptionRefusedError,
    services.CreditRefusedError,
    services.AccountRefusedError,
    services.PeriodNotOpenError,
)
"""What may be answered to somebody who asks for too much. Anything else is a fault."""
EXAMPLES = 200
"""At most: each takes half a second."""
SECOND = timedelta(seconds=1)
WAITS = (
    timedelta(microseconds=1),
    SECOND,
    timedelta(minutes=7),
    timedelta(minutes=15),
    timedelta(hours=5),
    timedelta(days=9),
)
EDGES = (-SECOND, timedelta(0), SECOND, GRACE - SECOND, GRACE)
DEAREST = Decimal("299.02")
"""A month's fee of the dearest plan, and what rounding its parts may add."""

plans = st.sampled_from(["developer", "professional", "team"])
intervals = st.sampled_from(list(Interval))
# Zones without summer time: with it, a change of zone may move the edges of a year.
zones = st.sampled_from(["UTC", "Asia/Kolkata", "America/Phoenix"])
days = st.sampled_from([1, 15, 31])
amounts = st.sampled_from([Decimal("0.01"), Decimal(40), Decimal(150)])


class AccountMachine(RuleBasedStateMachine):
    """Every rule may be refused; none may fail, and what is billed holds together."""

    def __init__(self) -> None:
        super().__init__()
        self._atomic = transaction.atomic()
        self._atomic.__enter__()
        self.now = OPENED
        self.numbers = count(1)
        self.used: set[object] = set()
        self.closed: list[Period] = []

    @initialize(zone=zones, day=days, rate=st.sampled_from(["0", "0.19"]), inside=st.booleans())
    def open(self, zone: str, day: int, rate: str, *, inside: bool) -> None:
        Plan.objects.filter(code="professional").update(trial_days=14)
        Plan.objects.filter(code="team").update(credit_rollover_periods=1)
        tax = Tax(Decimal(rate), is_inclusive=inside)
        account = services.open_account(
            name="Ada", now=OPENED, time_zone=zone, anchor_day=day, tax=tax
        )
        self.account_id = account.pk

    @property
    def account(self) -> Account:
        return Account.objects.get(pk=self.account_id)

    def ask(self, question: Callable[[], object]) -> None:
        try:
            with transaction.atomic():
                question()
        except REFUSALS:
            pass

    @rule(wait=st.sampled_from(WAITS))
    def wait(self, wait: timedelta) -> None:
        self.now += wait

    @rule(edge=st.sampled_from(EDGES))
    def wait_for_an_edge(self, edge: timedelta) -> None:
        self.now = max(self.now, period_containing(self.account, self.now).end + edge)

    @rule(plan=plans, interval=intervals)
    def choose(self, plan: str, interval: Interval) -> None:
        self.ask(
            lambda: services.choose_plan(
                self.account_id, plan_code=plan, now=self.now, interval=interval
            )
        )

    @rule(plan=plans, interval=intervals, months=st.sampled_from([None, 1, 3]))
    def subscribe(self, plan: str, interval: Interval, months: int | None) -> None:
        agreed = services.AgreedTerms(
            commitment_minimum=Decimal(50) if months else None, commitment_months=months
        )
        self.ask(
            lambda: services.subscribe(
                self.account_id, plan_code=plan, now=self.now, interval=interval, agreed=agreed
            )
        )

    @rule(plan=plans, interval=intervals)
    def change_at_the_end(self, plan: str, interval: Interval) -> None:
        self.ask(
            lambda: services.change_plan_at_end(
                self.account_id, plan_code=plan, now=self.now, interval=interval
            )
        )

    @rule()
    def cancel(self) -> None:
        self.ask(lambda: services.cancel_subscription(self.account_id, now=self.now))

    @rule()
    def cancel_now(self) -> None:
        self.ask(lambda: services.cancel_subscription_now(self.account_id, now=self.now))

    @rule()
    def resume(self) -> None:
        self.ask(lambda: services.resume_subscription(self.account_id, now=self.now))

    @rule(zone=zones, day=days)
    def change_cycle(self, zone: str, day: int) -> None:
        self.ask(
            lambda: services.change_cycle(
                self.account_id, now=self.now, time_zone=zone, anchor_day=day
            )
        )

    @rule(kind=st.sampled_from([CreditKind.PROMOTIONAL, CreditKind.PREPAID]), amount=amounts)
    def give(self, kind: CreditKind, amount: Decimal) -> None:
        expires_at = self.now + timedelta(days=20) if kind is CreditKind.PROMOTIONAL else None
        gift = services.Gift(
            kind, amount, "Welcome", f"gift {next(self.numbers)}", expires_at=expires_at
        )
        services.grant_credit(self.account_id, gift, now=self.now)

    @rule(amount=amounts)
    def spend(self, amount: Decimal) -> None:
        by = services.ByHand(reason="Support", reference=f"use {next(self.numbers)}")
        self.ask(lambda: services.use_credit(self.account_id, amount, by=by, now=self.now))

    @rule(cpu_s=st.sampled_from([1, 10**6, 10**8]))
    def use(self, cpu_s: int) -> None:
        at = window_start(self.now)
        # What is read after the usage was frozen is late, and on no invoice.
        if at not in self.used and at >= self.account.open_period_start:
            self.used.add(at)
            record_usage(self.account_id, at, cpu_s=cpu_s)

    @rule()
    def draft(self) -> None:
        account = self.account
        period = period_containing(account, self.now)
        if period.start < account.open_period_start:
            return
        stated = preview_period(account, period)
        draft = services.draft_current_period(self.account_id, now=self.now)
        assert figures_of(draft) == figures_stated(stated)

    @precondition(lambda _: Invoice.objects.filter(status="pending").exists())
    @rule(is_made_again=st.booleans())
    def void(self, *, is_made_again: bool) -> None:
        invoice = Invoice.objects.filter(status="pending").latest("pk")
        because = services.Because("A mistake")
        if not is_made_again:
            services.void_invoice(invoice.pk, because=because, now=self.now)
            return
        made_again = services.reissue_invoice(invoice.pk, because=because, now=self.now)
        assert made_again.subscription_fee == invoice.subscription_fee
        assert made_again.usage_fee == invoice.usage_fee

    @rule()
    def sweep(self) -> None:
        read_streams_until(self.now)
        services.grant_due_credits(self.now)
        services.draft_due_invoices(self.now)
        account, period = self.account, self.account.open_period
        stated = preview_period(account, period)
        if services.finalise_due_invoices(self.now):
            self.closed.append(period)
            # The next one may have been drafted while it ran, and be over by now too.
            reached = self.account.open_period_start
            if reached > period.end:
                self.closed.append(Period(period.end, reached))
            final = Invoice.objects.filter(account=account, period_start=period.start)
            if invoice := final.exclude(status="void").first():
                assert figures_of(invoice) == figures_stated(stated)
            else:
                assert not stated.fees
                assert not stated.rating.lines
        services.expire_due_credits(self.now)
        assert self.account.parked_reason == ""

    @invariant()
    def no_credit_is_below_zero(self) -> None:
        balances = CreditGrant.objects.annotate(left=Sum("entries__amount"))
        assert not balances.filter(left__lt=0).exists()

    @invariant()
    def periods_follow_one_another(self) -> None:
        assert all(one.end == other.start for one, other in pairwise(self.closed))
        if self.closed and hasattr(self, "account_id"):
            assert self.account.open_period_start == self.closed[-1].end

    def teardown(self) -> None:
        try:
            if hasattr(self, "account_id"):
                self.bill_what_is_left()
                self.check_fees()
        finally:
            transaction.set_rollback(True)
            self._atomic.__exit__(None, None, None)

    def bill_what_is_left(self) -> None:
        until = period_containing(self.account, self.now).end
        self.now = until + timedelta(days=2)
        while self.account.open_period_end <= until:
            open_period = self.account.open_period
            self.sweep()
            assert self.account.open_period_start >= open_period.end

    def check_fees(self) -> None:
        lines = InvoiceLine.objects.filter(kind="fee").exclude(invoice__status="void")
        for invoice in Invoice.objects.exclude(status__in=["void", "draft"]):
            monthly = lines.filter(invoice=invoice, unit="periods")
            assert sum(line.amount for line in monthly) <= DEAREST
        charged = sorted(lines.filter(unit="years").values_list("period_start", flat=True))
        voided = InvoiceLine.objects.filter(kind="fee", unit="years", invoice__status="void")
        lost = set(voided.values_list("period_start", flat=True)) - set(charged)
        assert sorted({*charged, *lost}) == sorted(self.years())
        assert len(charged) == len(set(charged))

    def years(self) -> list[datetime]:
        """Return where each paid year starts that lies in closed time."""
        account = self.account
        starts: list[datetime] = []
        rows = Subscription.objects.filter(interval=Interval.ANNUAL, fee__gt=0)
        for row in rows:
            first = max(row.started_at, row.trial_ends_at or row.started_at)
            start, number = first, 0
            while start < min(
                row.expires_at or account.open_period_start, account.open_period_start
            ):
                starts.append(start)
                number += 1
                start = add_months(first, number * MONTHS_OF_A_YEAR, account.cycle.zone)
        return starts


def figures_of(invoice: Invoice) -> tuple[Decimal, ...]:
    return (
        invoice.subscription_fee,
        invoice.usage_fee,
        invoice.credits_used,
        invoice.tax,
        invoice.total_amount,
        invoice.prepaid_used,
        invoice.amount_due,
        invoice.credited,
    )


def figures_stated(statement: Statement) -> tuple[Decimal, ...]:
    totals = statement.totals
    return (
        totals.subscription_fee.amount,
        totals.usage_fee.amount,
        totals.credits_used.amount,
        totals.tax.amount,
        totals.total_amount.amount,
        totals.prepaid_used.amount,
        totals.amount_due.amount,
        totals.credited.amount,
    )


@pytest.mark.django_db
def test_whatever_is_asked_of_an_account_its_bills_hold_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its fees leap from one period to the next, and nobody is there to accept them.
    monkeypatch.setattr("django.conf.settings.BILLING_SAFETY_FACTOR", 0)
    run_state_machine_as_test(
        AccountMachine,
        settings=settings(
            max_examples=min(settings().max_examples // 2, EXAMPLES),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
