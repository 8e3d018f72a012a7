"""Usage that became known after its invoice: on the next one, to the cent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import services, tasks
from billing.credits import CreditKind
from billing.facts import AccountPeriod, facts_of, period_facts
from billing.late_usage import reckon_late_usage
from billing.lifecycle import TransitionRefusedError
from billing.models import (
    Account,
    BilledLateUsage,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    InvoiceAdjustment,
    InvoiceLine,
    Price,
    UnbilledLateUsage,
)
from billing.queries import current_usage, unbilled_late_counts
from billing.statement import state_period
from metering.meters import GB
from metering.models import LateUsage, Life, StreamCursor, UsageRecord
from metering.period import WINDOW, Period
from soulbox.tasks import take_figures
from tests.billing.usage import (
    AFTER_MAY,
    GRACE,
    JUNE,
    MAY,
    NOON,
    bill,
    credits_left,
    open_account,
    read_streams_until,
    record_usage,
)
from tests.metering.batches import Host

pytestmark = pytest.mark.django_db

JULY = Period(JUNE.end, datetime.fromisoformat("2026-08-01T00:00:00+00:00"))
SECOND = 10**9
PAGE = Path(__file__).parents[2] / "docs" / "corrections.md"
CENT = Decimal("0.01")
CPU = Decimal("0.000012")
AGAIN = services.Because("Wrong buyer")


def become_late(
    account: Account, quantity: int, *, at: datetime = NOON, name: str = "cpu_ns"
) -> None:
    """Leave the row that metering has once so much of a frozen window became known."""
    life = Life.objects.filter(sandbox__account_id=account.pk).order_by("started_at")[0]
    row, made = LateUsage.objects.get_or_create(
        life=life,
        quantity_name=name,
        window_start=at,
        defaults={"quantity": quantity, "recorded_at": AFTER_MAY},
    )
    if not made:
        row.quantity += quantity
        row.save(update_fields=["quantity"])


def adjusted(invoice: Invoice) -> dict[tuple[str, str], Decimal]:
    """Return an invoice's adjustment lines by component and meter."""
    return {
        (row.component, row.line.meter): row.line.amount
        for row in InvoiceAdjustment.objects.filter(line__invoice=invoice).select_related("line")
    }


def worked_examples() -> Iterator[tuple[int, int, bool, list[Decimal]]]:
    """Yield the page's table: seconds billed and late, with the discount or not, and amounts."""
    row = re.compile(r"\| ([\d,]+) s \| (−?[\d,]+) s \| (–|10 % from 15) \| ([−\d., ]+) \|")
    for billed, known_late, discount, amounts in row.findall(PAGE.read_text()):
        yield (
            int(billed.replace(",", "")),
            int(known_late.replace(",", "").replace("−", "-")),
            discount != "–",
            [Decimal(amount.replace("−", "-")) for amount in amounts.split(", ")],
        )


def rows_of(invoice: Invoice) -> list[Any]:
    """Return all that an invoice says."""
    return [
        Invoice.objects.filter(pk=invoice.pk).values().get(),
        *invoice.lines.order_by("position").values(),
        *invoice.applied_discounts.values(),
        *invoice.billed_late_usage.values(),
    ]


def grown_by(minute: int, readings: list[tuple[int, int]]) -> Decimal:
    """Return how far a counter that grows evenly between its readings has come by a minute."""
    for (start, low), (end, high) in pairwise(readings):
        if start <= minute <= end:
            return low - readings[0][1] + Decimal(high - low) * (minute - start) / (end - start)
    raise ValueError(minute)


def cost(seconds: int | Decimal) -> Decimal:
    return (seconds * CPU).quantize(CENT, ROUND_HALF_UP)


def test_late_usage_is_on_the_next_invoice_for_its_own_period() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    may = bill(account)
    before = rows_of(may)
    assert may.total_amount == 12
    become_late(account, 500_000 * SECOND)
    record_usage(account.pk, NOON + timedelta(days=31), cpu_s=1_000_000)
    june = bill(account, JUNE)
    line = june.lines.get(kind=InvoiceLine.Kind.ADJUSTMENT)
    assert (line.description, line.meter) == ("CPU time, known late", "cpu")
    assert line.amount == 6
    assert (line.quantity, line.unit) == (Decimal(500_000 * SECOND), "cpu_seconds")
    assert line.period == MAY
    assert (june.usage_fee, june.adjustments, june.total_amount) == (12, 6, 18)
    assert rows_of(may) == before
    # It is asked for once.
    record_usage(account.pk, NOON + timedelta(days=62), cpu_s=1_000_000)
    assert bill(account, JULY).adjustments == 0
    assert LateUsage.objects.get().quantity == BilledLateUsage.objects.get().quantity


def test_late_usage_that_grows_is_billed_in_steps_that_cost_what_all_of_it_costs() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=400)
    bill(account)
    become_late(account, 500 * SECOND)
    june = bill(account, JUNE)
    # 400 s cost 0.0048, which is 0.00; 900 s cost 0.0108, which is 0.01.
    assert june.adjustments == cost(900) - cost(400) == CENT
    become_late(account, 700 * SECOND)
    july = bill(account, JULY)
    assert july.adjustments == cost(1600) - cost(900) == CENT
    assert [row.quantity for row in BilledLateUsage.objects.order_by("invoice_id")] == [
        500 * SECOND,
        700 * SECOND,
    ]


def test_usage_that_the_frozen_window_had_too_much_of_comes_off_the_next_invoice() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, -250_000 * SECOND)
    june = bill(account, JUNE)
    assert (june.adjustments, june.total_amount, june.credited) == (-3, 0, 3)
    assert june.status == Invoice.Status.PAID
    assert credits_left(account, JULY).amount == 3


@pytest.mark.parametrize("example", list(worked_examples()), ids=str)
def test_the_pages_examples_are_what_is_invoiced(
    example: tuple[int, int, bool, list[Decimal]],
) -> None:
    billed, known_late, is_discounted, amounts = example
    account = open_account()
    if is_discounted:
        DiscountRule.objects.create(
            name="Much",
            kind="volume",
            percent=10,
            min_amount=15,
            valid_from=MAY.start.date(),
        )
    record_usage(account.pk, cpu_s=billed)
    assert bill(account).discounts == 0
    become_late(account, known_late * SECOND)
    june = bill(account, JUNE)
    assert list(june.lines.values_list("amount", flat=True)) == amounts
    assert june.adjustments == sum(amounts)


def test_the_page_has_all_its_examples() -> None:
    assert len(list(worked_examples())) == 5


def test_a_committed_minimum_is_lower_by_what_late_usage_fills_of_it() -> None:
    account = open_account()
    services.subscribe(
        account.pk,
        plan_code="professional",
        agreed=services.AgreedTerms(
            fee=Decimal(0),
            monthly_credits=Decimal(0),
            commitment_minimum=Decimal(50),
            commitment_months=12,
        ),
        now=MAY.start,
    )
    record_usage(account.pk, cpu_s=1_000_000)
    assert bill(account).total_amount == 50
    become_late(account, 500_000 * SECOND)
    june = bill(account, JUNE)
    assert adjusted(june) == {("usage", "cpu"): 6, ("true_up", ""): -6}
    assert (june.adjustments, june.total_amount) == (0, 50)


def test_what_expired_unused_of_the_periods_credit_pays_first() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=8_000_000)
    may = bill(account)
    assert (may.usage_fee, may.credits_used) == (96, 96)
    monthly = CreditGrant.objects.get(period_start=MAY.start)
    assert monthly.entries.get(kind="expire").amount == -4
    become_late(account, 1_000_000 * SECOND)
    june = bill(account, JUNE)
    assert adjusted(june) == {("usage", "cpu"): 12, ("credit", ""): -4}
    assert june.total_amount == 99 + 8
    kinds = monthly.entries.filter(invoice=june).values_list("kind", "amount")
    assert list(kinds) == [("restore", 4), ("late_use", -4)]
    # The credit of June is June's: it expires unused and pays nothing of May.
    assert (
        CreditGrant.objects.get(period_start=JUNE.start).entries.get(kind="expire").amount == -100
    )
    # What comes after it finds nothing left of May's credit.
    become_late(account, 1_000_000 * SECOND)
    assert adjusted(bill(account, JULY)) == {("usage", "cpu"): 12}


def test_credit_that_paid_usage_which_was_not_there_comes_back_and_lapses() -> None:
    account = open_account(plan_code="professional")
    gift = services.Gift(
        CreditKind.PROMOTIONAL, Decimal(30), "Welcome", "welcome", effective_at=MAY.start
    )
    grant = services.grant_credit(account.pk, gift, now=NOON)
    record_usage(account.pk, cpu_s=10_000_000)
    may = bill(account)
    assert may.credits_used == 120
    become_late(account, -2_500_000 * SECOND)
    june = bill(account, JUNE)
    assert adjusted(june)["usage", "cpu"] == -30
    returned = CreditEntry.objects.filter(invoice=june, kind="return")
    assert {entry.grant.kind: entry.amount for entry in returned} == {
        "promotional": 20,
        "monthly": 10,
    }
    # 30 less of usage, and 30 less of credit for it: nothing to pay back.
    assert (june.adjustments, june.total_amount) == (0, 99)
    assert sum(grant.entries.values_list("amount", flat=True)) == 30
    monthly = CreditGrant.objects.get(period_start=MAY.start)
    assert sum(monthly.entries.values_list("amount", flat=True)) == 0


def test_promotional_credit_pays_late_usage_before_the_usage_of_the_open_period() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    gift = services.Gift(
        CreditKind.PROMOTIONAL, Decimal(20), "Welcome", "welcome", effective_at=MAY.start
    )
    services.grant_credit(account.pk, gift, now=NOON)
    assert bill(account).credits_used == 12
    become_late(account, 500_000 * SECOND)
    record_usage(account.pk, NOON + timedelta(days=31), cpu_s=1_000_000)
    june = bill(account, JUNE)
    assert adjusted(june) == {("usage", "cpu"): 6, ("credit", ""): -6}
    assert (june.credits_used, june.total_amount) == (2, 10)
    kinds = CreditEntry.objects.filter(invoice=june).values_list("kind", "amount")
    assert sorted(kinds) == [("late_use", -6), ("use", -2)]


def test_a_void_invoice_leaves_credit_and_late_usage_as_they_were() -> None:
    account = open_account(plan_code="professional")
    record_usage(account.pk, cpu_s=8_000_000)
    bill(account)
    become_late(account, 1_000_000 * SECOND)
    june = bill(account, JUNE)
    again = services.reissue_invoice(june.pk, because=AGAIN, now=JULY.start)
    # The period's own usage and fee only: what was late waits for the next.
    assert (again.adjustments, again.total_amount) == (0, 99)
    services.void_invoice(june.pk, because=AGAIN, now=JULY.start)
    july = bill(account, JULY)
    assert adjusted(july) == {("usage", "cpu"): 12, ("credit", ""): -4}
    monthly = CreditGrant.objects.get(period_start=MAY.start)
    assert sum(monthly.entries.values_list("amount", flat=True)) == 0


def test_a_void_invoice_takes_back_what_it_returned_or_is_refused() -> None:
    account = open_account()
    gift = services.Gift(
        CreditKind.PROMOTIONAL, Decimal(30), "Welcome", "welcome", effective_at=MAY.start
    )
    grant = services.grant_credit(account.pk, gift, now=NOON)
    record_usage(account.pk, cpu_s=2_500_000)
    record_usage(account.pk, NOON + timedelta(days=31), cpu_s=100_000)
    bill(account)
    become_late(account, -1_000_000 * SECOND)
    june = bill(account, JUNE)
    # June's own 1.20 are paid by what came back.
    assert june.status == Invoice.Status.PAID
    with pytest.raises(TransitionRefusedError):
        services.void_invoice(june.pk, because=AGAIN, now=JULY.start)
    assert sum(grant.entries.values_list("amount", flat=True)) == 30 - 30 + 12 - Decimal("1.20")


def test_a_void_draft_of_late_usage_bills_nothing() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, 500_000 * SECOND)
    draft = services.draft_invoice(account.pk, period=JUNE, now=JUNE.end)
    assert draft.adjustments == 6
    assert draft.billed_late_usage.count() == 1
    # It is still to be billed: drafts ask for nothing, and a void one gives it free.
    services.void_invoice(draft.pk, because=AGAIN, now=JUNE.end)
    again = bill(account, JUNE)
    assert (again.adjustments, again.billed_late_usage.count()) == (6, 1)


def test_late_usage_that_arrives_between_draft_and_final_is_on_it() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, 100_000 * SECOND)
    draft = services.draft_invoice(account.pk, period=JUNE, now=JUNE.end)
    assert draft.adjustments == Decimal("1.20")
    become_late(account, 400_000 * SECOND)
    assert bill(account, JUNE).adjustments == 6
    assert current_usage(account.pk, now=JULY.start).total_amount.amount == 0


def test_the_batch_of_a_sweep_writes_the_same_lines() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, 500_000 * SECOND)
    assert current_usage(account.pk, now=JUNE.start).total_amount.amount == 6
    read_streams_until(JUNE.end + GRACE)
    services.draft_due_invoices(JUNE.end + GRACE)
    services.finalise_due_invoices(JUNE.end + GRACE)
    june = Invoice.objects.get(account=account, period_start=JUNE.start)
    assert june.status == Invoice.Status.PENDING
    assert adjusted(june) == {("usage", "cpu"): 6}
    assert june.billed_late_usage.get().quantity == 500_000 * SECOND


def test_a_price_that_was_changed_since_does_not_slip_in() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    Price.objects.filter(meter="cpu", currency="USD").update(unit_price=Decimal("0.00002"))
    assert state_period(period_facts(account, MAY)).totals.usage_fee.amount == 20
    account.refresh_from_db()
    assert reckon_late_usage([account]) == {}
    become_late(account, 100_000 * SECOND)
    # 100,000 s at the price of now; what the other seconds would cost now is not its matter.
    assert bill(account, JUNE).adjustments == 2


def test_what_cannot_be_billed_is_told_with_its_reason() -> None:
    dropped, below, void = (open_account(name) for name in ("Ada", "Bob", "Cyd"))
    invoices = {}
    for account in (dropped, below, void):
        record_usage(account.pk, cpu_s=1_000_000)
        invoices[account.pk] = bill(account)
    become_late(dropped, 500_000 * SECOND)
    become_late(below, -1_000_001 * SECOND)
    become_late(void, 500_000 * SECOND)
    UsageRecord.objects.filter(life__sandbox__account_id=dropped.pk).delete()
    services.void_invoice(invoices[void.pk].pk, because=AGAIN, now=AFTER_MAY)
    accounts = list(Account.objects.all())
    reckoned = reckon_late_usage(accounts)
    reasons = {pk: one.unbilled[0].reason.value for pk, one in reckoned.items()}
    assert reasons == {
        dropped.pk: "usage_not_kept",
        below.pk: "below_zero",
        void.pk: "invoice_void",
    }
    assert [one.carried.adjustments for one in reckoned.values()] == [()] * 3
    assert reckoned[below.pk].unbilled[0].quantity == -1_000_001 * SECOND
    for _ in range(2):
        services.note_unbilled_late_usage(now=AFTER_MAY)
    noted = UnbilledLateUsage.objects.values_list("account", "meter", "reason")
    assert set(noted) == {(pk, "cpu", reason) for pk, reason in reasons.items()}
    assert noted.count() == 3
    assert unbilled_late_counts() == [("cpu", reason, 1) for reason in sorted(reasons.values())]
    take_figures()
    assert 'unbilled_late_usage_accounts{meter="cpu",reason="below_zero"} 1.0' in (
        Client().get("/metrics").content.decode()
    )
    # Once the cause is gone it is billed, and not told of any more.
    become_late(below, SECOND)
    services.note_unbilled_late_usage(now=AFTER_MAY)
    assert not UnbilledLateUsage.objects.filter(account=below).exists()


def test_accounts_with_late_usage_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.services.unbilled.ACCOUNTS_AT_ONCE", 2)
    cache.delete(tasks._LATE_NOTED_UP_TO)
    for name in ("Ada", "Bob", "Cyd"):
        account = open_account(name)
        record_usage(account.pk, cpu_s=1_000)
        bill(account)
        become_late(account, -1_001 * SECOND)
    first = services.note_unbilled_late_usage(now=AFTER_MAY)
    assert UnbilledLateUsage.objects.count() == 2
    assert services.note_unbilled_late_usage(now=AFTER_MAY, after=first) is None
    assert UnbilledLateUsage.objects.count() == 3
    tasks.note_unbilled_late_usage()
    assert UnbilledLateUsage.objects.count() == 3


def test_what_no_price_book_charges_for_is_settled_and_not_told() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, 700, name="disk_write_bytes")
    account.refresh_from_db()
    [reckoning] = reckon_late_usage([account]).values()
    assert reckoning.unbilled == ()
    assert reckoning.carried.adjustments == ()
    record_usage(account.pk, NOON + timedelta(days=31), cpu_s=1_000_000)
    june = bill(account, JUNE)
    assert june.billed_late_usage.get().meter == "disk_write"
    assert reckon_late_usage([account]) == {}


def test_accounts_without_late_usage_cost_two_queries_however_many_they_are() -> None:
    accounts = [open_account(name) for name in ("Ada", "Bob", "Cyd", "Dan")]
    for account in accounts:
        record_usage(account.pk, cpu_s=1_000)
    for account in accounts:
        record_usage(account.pk, NOON + timedelta(days=31), cpu_s=1_000)
        bill(account)
    opened = list(Account.objects.all())

    def queries(count: int) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            facts_of([AccountPeriod(one, one.open_period) for one in opened[:count]])
        return len(captured)

    assert queries(4) == queries(1)
    with CaptureQueriesContext(connection) as captured:
        assert reckon_late_usage(opened) == {}
    assert len(captured) == 2


def test_what_a_final_invoice_says_of_earlier_periods_stays() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    bill(account)
    become_late(account, 500_000 * SECOND)
    june = bill(account, JUNE)
    changes = (
        lambda: BilledLateUsage.objects.update(quantity=1),
        lambda: BilledLateUsage.objects.all().delete(),
        lambda: InvoiceAdjustment.objects.update(component="true_up"),
        lambda: InvoiceAdjustment.objects.all().delete(),
        lambda: BilledLateUsage.objects.create(
            invoice=june, meter="cpu", sandbox_id="x", life_id=1, window_start=NOON, quantity=1
        ),
    )
    for change in changes:
        with pytest.raises(DatabaseError, match="is final"), transaction.atomic():
            change()


def test_samples_after_the_freeze_make_an_exact_adjustment_and_change_no_byte() -> None:
    account = open_account()
    host = Host(registered_at=MAY.start)
    begun = MAY.end - timedelta(hours=2)
    steady = host.start(account.pk, "steady", begun)
    host.read(steady, begun + 2 * WINDOW, cpu_ns=1_800_000 * SECOND, network={"eth0": (0, 10 * GB)})
    host.fold(begun + 2 * WINDOW)
    StreamCursor.objects.filter(host=host.host).update(collected_until=AFTER_MAY)
    may = bill(account)
    before = rows_of(may)
    assert may.lines.get(meter="cpu").amount == cost(1_800_000)
    assert may.lines.get(meter="network_egress").amount == Decimal("0.20")

    # After the freeze: a reading of June, whose growth begins in May; a life of May that nobody
    # had heard of; all of it twice, and a reading of May after the one of June.
    unheard = host.start(account.pk, "unheard", MAY.end - timedelta(hours=1))
    for _ in range(2):
        host.read(
            steady,
            MAY.end + timedelta(hours=2),
            cpu_ns=3_060_000 * SECOND,
            network={"eth0": (0, 80 * GB)},
        )
        host.read(unheard, MAY.end - 2 * WINDOW, cpu_ns=900_000 * SECOND)
        host.read(unheard, MAY.end - WINDOW, cpu_ns=1_000_000 * SECOND)
        host.read(steady, begun + 4 * WINDOW, cpu_ns=1_900_000 * SECOND)
    host.fold(MAY.end + timedelta(hours=3))

    # By hand, in minutes from 22:30: a counter grows evenly between two readings.
    steady_s = grown_by(90, [(0, 1_800_000), (30, 1_900_000), (210, 3_060_000)])
    late_cpu = cost(1_800_000 + steady_s + 1_000_000) - cost(1_800_000)
    egress_gb = grown_by(90, [(0, 10), (210, 80)])
    late_egress = (egress_gb * Decimal("0.02")).quantize(CENT, ROUND_HALF_UP)
    StreamCursor.objects.filter(host=host.host).update(collected_until=JUNE.end + GRACE)
    june = bill(account, JUNE)
    found = adjusted(june)
    assert found["usage", "cpu"] == late_cpu == Decimal("17.84")
    assert found["usage", "network_egress"] == late_egress == Decimal("0.60")
    assert june.lines.get(meter="cpu", kind="usage").amount == cost(1_260_000 - steady_s)
    assert june.adjustments == sum(found.values())
    assert rows_of(may) == before
    # Sent once more, and between readings that are counted: nothing is new.
    host.read(steady, begun + 3 * WINDOW, cpu_ns=1_801_000 * SECOND)
    host.read(unheard, MAY.end - WINDOW, cpu_ns=1_000_000 * SECOND)
    host.fold(MAY.end + timedelta(hours=4))
    account.refresh_from_db()
    assert reckon_late_usage([account]) == {}
