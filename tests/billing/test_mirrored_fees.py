"""Fees on two sides, ours and the payment provider's: each second is asked for on one."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from pytest_django.fixtures import Settings

from billing import services
from billing.credit_notes import CreditNoteRefusedError
from billing.fees import Interval
from billing.mirrored_fees import FeeDifference, FeeDifferenceKind, fee_differences
from billing.models import Account, Invoice, InvoiceLine, Plan, Subscription
from billing.money import Money
from billing.periods import add_months
from metering.period import Period
from tests.billing.periods import dollars, utc
from tests.billing.usage import GRACE, OPENED, bill, open_account, read_streams_until

pytestmark = pytest.mark.django_db
PRICES = {"price_pro": Decimal(99), "price_team": Decimal(299)}
BEGAN = utc("2026-05-15T10:03:07")
RENEWED = utc("2026-06-15T10:03:07")
THEIRS = Period(BEGAN, RENEWED)
UPGRADED = utc("2026-05-25T00:00:00")
SECOND = timedelta(seconds=1)
SEEDS = int(os.environ.get("FEE_SEEDS", "20"))
"""Histories of an account. Each takes about two seconds; a failing one is its number."""


@pytest.fixture(autouse=True)
def _collected(settings: Settings) -> None:
    settings.BILLING_SAFETY_FLOOR = 10**9
    Plan.objects.filter(code="professional").update(stripe_price_id="price_pro")
    Plan.objects.filter(code="team").update(stripe_price_id="price_team")


@pytest.fixture
def account() -> Account:
    account = open_account()
    services.subscribe(account.pk, plan_code="professional", now=BEGAN)
    return services.take_provider_period(account.pk, THEIRS, now=BEGAN)


def fee(amount: str, period: Period = THEIRS, price_id: str = "") -> services.MirroredLine:
    return services.MirroredLine("Fee", period, dollars(amount), price_id)


def mirror(
    account: Account, *lines: services.MirroredLine, number: str = "S-1", now: datetime = BEGAN
) -> Invoice:
    total = Money.total((line.amount for line in lines), "USD")
    mirrored = services.MirroredInvoice(
        number=number,
        period=lines[0].period,
        lines=lines,
        tax=dollars("0"),
        total=total,
        is_paid=True,
    )
    return services.mirror_invoice(account.pk, mirrored, now=now)


def differences(account: Account, now: datetime) -> list[FeeDifference]:
    return fee_differences(account.pk, now=now)


def test_a_fee_in_its_time_is_taken_and_leaves_nothing_to_say(account: Account) -> None:
    for _ in range(2):
        mirror(account, fee("99", price_id="price_pro"))
    assert differences(account, RENEWED) == []
    assert Invoice.objects.count() == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (fee("99", Period(BEGAN - SECOND, RENEWED)), "was on no plan at"),
        (fee("299", price_id="price_team"), "is at price_pro from .*, not at price_team"),
    ],
)
def test_a_fee_that_fits_no_collected_plan_is_refused(
    account: Account, line: services.MirroredLine, reason: str
) -> None:
    with pytest.raises(services.FeeConflictError, match=reason):
        mirror(account, line)
    assert not Invoice.objects.exists()


def test_a_fee_that_our_invoices_ask_for_is_refused() -> None:
    account = open_account()
    services.subscribe(account.pk, plan_code="team", interval=Interval.ANNUAL, now=OPENED)
    for closed in (False, True):
        if closed:
            bill(account)
        with pytest.raises(services.FeeConflictError, match="Team is on our invoices"):
            mirror(account, fee("299"))


def test_a_second_that_the_provider_asks_for_twice_is_refused(account: Account) -> None:
    mirror(account, fee("99"))
    with pytest.raises(services.FeeConflictError, match="S-1 asks for"):
        mirror(account, fee("99", Period(RENEWED - SECOND, RENEWED)), number="S-2")
    mirror(account, fee("99", Period(RENEWED, utc("2026-07-15T10:03:07"))), number="S-3")


def test_an_upgrade_at_the_provider_is_charged_once_in_any_order(account: Account) -> None:
    services.choose_plan(account.pk, plan_code="team", now=UPGRADED)
    rest = Period(UPGRADED, RENEWED)
    mirror(account, fee("-67.84", rest), fee("204.90", rest, "price_team"), number="S-2")
    mirror(account, fee("99", THEIRS, "price_pro"), number="S-1")
    assert differences(account, RENEWED) == []


def test_a_fee_that_the_provider_did_not_ask_for_is_listed(account: Account) -> None:
    mirror(account, fee("99"))
    later = RENEWED + timedelta(days=1)
    missing = FeeDifference(FeeDifferenceKind.NOT_CHARGED, Period(RENEWED, later))
    assert differences(account, later) == [missing]
    # The provider's month begins a little after ours.
    assert differences(account, RENEWED + timedelta(minutes=14)) == []


def test_what_was_collected_beyond_the_plans_end_is_given_back_once(account: Account) -> None:
    invoice = mirror(account, fee("99"))
    services.cancel_subscription_now(account.pk, now=UPGRADED)
    end = UPGRADED + timedelta(minutes=15)
    assert differences(account, UPGRADED) == []
    # 21 days, 9 hours, 48 minutes and 7 seconds of 31 days.
    unused = FeeDifference(
        FeeDifferenceKind.UNUSED, Period(end, RENEWED), dollars("68.37"), invoice.pk
    )
    assert differences(account, RENEWED) == [unused]
    for _ in range(2):
        services.give_back_unused_fees(account.pk, now=end)
    assert differences(account, RENEWED) == []
    [note] = invoice.credit_notes.all()
    assert (note.total, note.as_credit) == (Decimal("68.37"), Decimal("68.37"))


def test_after_an_upgrade_both_invoices_give_back_their_part(account: Account) -> None:
    services.choose_plan(account.pk, plan_code="team", now=UPGRADED)
    rest = Period(UPGRADED, RENEWED)
    first = mirror(account, fee("99"))
    second = mirror(account, fee("-68.41", rest), fee("206.61", rest), number="S-2")
    services.cancel_subscription_now(account.pk, now=UPGRADED)
    services.give_back_unused_fees(account.pk, now=RENEWED)
    assert differences(account, RENEWED) == []
    given = [note.total for one in (first, second) for note in one.credit_notes.all()]
    # Together Team's fee for all but the first quarter of an hour after the upgrade.
    assert given == [Decimal("68.37"), Decimal("138.13")]


def test_a_top_up_is_not_credited() -> None:
    account = open_account()
    top_up = services.request_top_up(account.pk, Decimal(50), now=BEGAN)
    services.grant_top_up(top_up.pk, now=BEGAN)
    with pytest.raises(CreditNoteRefusedError, match="sold prepaid credit"):
        services.credit_in_full(
            Invoice.objects.get().pk, by=services.Author("Wrong", reference="x"), now=BEGAN
        )


@dataclass
class Month:
    """A period of the provider's, and the subscriptions whose fee it collects in it."""

    period: Period
    rows: list[Subscription]


@dataclass
class Provider:
    """Collects fees as the provider does: in advance, from its own second, for its own months."""

    account: Account
    rng: random.Random
    month: Month | None = None
    anchor: datetime = OPENED
    number: int = 0
    months: list[Month] = field(default_factory=list)
    waiting: list[Callable[[], object]] = field(default_factory=list)

    def keep_up(self, now: datetime) -> None:
        """Do what follows from the account's plan up to now. What comes of it is told later."""
        while (month := self.month) and month.period.end <= now and self._goes_on(month.period.end):
            self._begin(month.period.end, now)
        if self.month and not self._goes_on(min(now, self.month.period.end)):
            self.month = None
        row = self._row_at(now)
        if row is None or not row.provider_price_id:
            return
        if self.month is None:
            self.anchor = row.started_at
            self._begin(row.started_at, now)
            self.keep_up(now)
        elif row not in self.month.rows:
            rest = Period(row.started_at, self.month.period.end)
            part = Decimal(_seconds(rest)) / _seconds(self.month.period)
            before = self.month.rows[-1]
            self.month.rows.append(row)
            lines = [
                fee(str((amount * part).quantize(Decimal("0.01"))), rest)
                for amount in (-before.fee, row.fee)
            ]
            self._ask(*lines, now=now)

    def _begin(self, start: datetime, now: datetime) -> None:
        row = self._row_at(start)
        assert row is not None
        bounds = (
            add_months(self.anchor, count, ZoneInfo("UTC"), day=self.anchor.day)
            for count in range(1, 30)
        )
        self.month = Month(Period(start, next(end for end in bounds if end > start)), [row])
        self.months.append(self.month)
        self._ask(fee(str(row.fee), self.month.period, row.provider_price_id), now=now)

    def _ask(self, *lines: services.MirroredLine, now: datetime) -> None:
        assert self.month is not None
        self.number += 1
        number, period = f"S-{self.number}", self.month.period
        self.waiting.append(lambda: mirror(self.account, *lines, number=number, now=now))
        self.waiting.append(lambda: self._tell(period, now))

    def deliver(self) -> None:
        """Let what waits come in, in any order, some of it twice."""
        self.rng.shuffle(self.waiting)
        for come in [*self.waiting, *self.rng.sample(self.waiting, len(self.waiting) // 2)]:
            come()
        self.waiting.clear()

    def _tell(self, period: Period, now: datetime) -> None:
        with suppress(services.ProviderPeriodTooLateError):
            services.take_provider_period(self.account.pk, period, now=now)

    def _row_at(self, moment: datetime) -> Subscription | None:
        row = self.account.subscriptions.filter(started_at__lte=moment).first()
        return None if row is None or (row.expires_at and row.expires_at <= moment) else row

    def _goes_on(self, moment: datetime) -> bool:
        assert self.month is not None
        row, mine = self._row_at(moment), self.month.rows[-1]
        mine.refresh_from_db()
        return bool(row and row.provider_price_id) and (row == mine or not mine.ends_period)


def _seconds(period: Period) -> int:
    return int(period.duration / SECOND)


def steps_of(rng: random.Random, account: Account, now: datetime) -> Callable[[], object]:
    """Return something that may be asked for."""
    plan = rng.choice(["developer", "professional", "team"])
    interval = rng.choice([Interval.MONTHLY, Interval.MONTHLY, Interval.ANNUAL])
    agreed = services.AgreedTerms(fee=Decimal(rng.choice([50, 400])))
    return rng.choice(
        [
            lambda: services.choose_plan(account.pk, plan_code=plan, now=now, interval=interval),
            lambda: services.choose_plan(account.pk, plan_code=plan, now=now),
            lambda: services.subscribe(account.pk, plan_code=plan, now=now, interval=interval),
            lambda: services.subscribe(account.pk, plan_code="team", now=now, agreed=agreed),
            lambda: services.change_plan_at_end(account.pk, plan_code=plan, now=now),
            lambda: services.cancel_subscription(account.pk, now=now),
            lambda: services.cancel_subscription_now(account.pk, now=now),
            lambda: services.resume_subscription(account.pk, now=now),
        ]
    )


def close_due(account: Account, now: datetime) -> None:
    account.refresh_from_db()
    while account.open_period_end + GRACE <= now:
        read_streams_until(now)
        draft = services.draft_invoice(account.pk, period=account.open_period, now=now)
        services.finalise_invoice(draft.pk, now=now)
        account.refresh_from_db()


def asked_for(account: Account, months: list[Month]) -> Iterator[tuple[str, Period, int]]:
    """Yield on which side which time was asked for, once more or, given back, once less.

    What the provider collected for beyond the end of the plan is given back by an amount.
    """
    lines = InvoiceLine.objects.filter(
        invoice__account=account, kind__in=["fee", "unused_fee"]
    ).exclude(invoice__status="void")
    for line in lines.select_related("invoice"):
        period, sign = Period(line.period_start, line.period_end), 1 if line.kind == "fee" else -1
        if line.invoice.kind != "subscription":
            yield "ours", period, sign
            continue
        [month] = [month for month in months if month.period.overlap(period) == period]
        month.rows[-1].refresh_from_db()
        if used := period.overlap(_span_of(month.rows[-1], period.end, month.period.start)):
            yield "theirs", used, sign


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_no_second_is_asked_for_on_both_sides_or_on_none(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - for histories, not for secrets
    zone = rng.choice(["UTC", "Europe/Berlin", "Asia/Kolkata"])
    account = services.open_account(
        name="Ada", now=OPENED, time_zone=zone, anchor_day=rng.choice([1, 15, 31])
    )
    provider, now = Provider(account, rng), OPENED
    for _ in range(10):
        now += timedelta(
            seconds=rng.choice([rng.randrange(1, 3000), rng.randrange(10**5, 2 * 10**6)])
        )
        provider.keep_up(now)
        provider.deliver()
        close_due(account, now)
        with suppress(services.SubscriptionRefusedError):
            steps_of(rng, account, now)()
        provider.keep_up(now)
        provider.deliver()
    # To the end of all that was charged in advance for a month, and of the periods around it.
    now += timedelta(days=40)
    provider.keep_up(now)
    provider.deliver()
    close_due(account, now)
    account.refresh_from_db()
    services.give_back_unused_fees(account.pk, now=now)
    assert_each_second_is_asked_for_once(account, provider.months)
    assert_the_provider_keeps_what_was_used(account, provider.months)
    assert fee_differences(account.pk, now=now) == []


def assert_each_second_is_asked_for_once(account: Account, months: list[Month]) -> None:
    """Look at each stretch in which nothing changes, up to where our periods are closed."""
    until = account.open_period_start
    rows = list(account.subscriptions.order_by("started_at"))
    asked = list(asked_for(account, months))
    edges = {OPENED, until}
    edges |= {moment for row in rows for moment in (row.started_at, row.expires_at) if moment}
    edges |= {moment for _, period, _ in asked for moment in (period.start, period.end)}
    for start, end in pairwise(sorted(edge for edge in edges if OPENED <= edge <= until)):
        row = next((row for row in rows if start in _span_of(row, until)), None)
        count = {"ours": 0, "theirs": 0}
        for side, period, sign in asked:
            if start in period:
                count[side] += sign
        if row and row.provider_collects:
            assert count == {"ours": 0, "theirs": 1}, (start, end)
        elif row and row.fee:
            # What comes to less than half a cent, of the longest month, has no line.
            cents = row.fee * _seconds(Period(start, end)) / (31 * 86_400)
            assert count["ours"] == 1 or (count["ours"] == 0 and cents < Decimal("0.005"))
        else:
            assert count["ours"] == 0, (start, end)


def _span_of(row: Subscription, until: datetime, start: datetime | None = None) -> Period:
    return Period(start or row.started_at, row.expires_at or max(until, row.started_at + SECOND))


def assert_the_provider_keeps_what_was_used(account: Account, months: list[Month]) -> None:
    """Compare what was collected and not given back with the fees by the second."""
    mirrored = Invoice.objects.filter(account=account, kind="subscription")
    kept = sum((invoice.total_amount for invoice in mirrored), Decimal(0))
    notes = [note for invoice in mirrored for note in invoice.credit_notes.all()]
    kept -= sum((note.total for note in notes), Decimal(0))
    due = Decimal(0)
    for month in months:
        for row in month.rows:
            row.refresh_from_db()
            if part := _span_of(row, month.period.end).overlap(month.period):
                due += row.fee * _seconds(part) / _seconds(month.period)
    roundings = 2 * len(mirrored) + len(notes)
    assert abs(kept - due) <= Decimal("0.005") * roundings
