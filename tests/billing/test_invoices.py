from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from billing import services
from billing.models import (
    Account,
    CreditEntry,
    Invoice,
    InvoiceLine,
    NumberSeries,
    Price,
    PriceBook,
    PriceBookVersion,
)
from billing.totals import Tax
from metering.meters import GB
from metering.models import AccountRegistration, StreamCursor
from metering.period import Period
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)

pytestmark = pytest.mark.django_db


def draft(account: Account, period: Period = MAY, now: datetime = MAY.end) -> Invoice:
    return services.draft_invoice(account.pk, period=period, now=now)


def finalise(invoice: Invoice, now: datetime = AFTER_MAY) -> Invoice:
    final = services.finalise_invoice(invoice.pk, now=now)
    assert final is not None
    final.refresh_from_db()
    return final


def lines_of(invoice: Invoice) -> list[tuple[str, Decimal]]:
    return [(line.meter or line.kind, line.amount) for line in invoice.lines.all()]


def everything() -> list[object]:
    """All that billing keeps of invoices and credits, to see whether a repeat changed it."""
    tables = (Invoice, InvoiceLine, NumberSeries, CreditEntry, Account)
    return [list(table.objects.order_by("pk").values()) for table in tables]


def test_a_draft_shows_the_figures_known_by_now() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    invoice = draft(account, now=NOON + timedelta(hours=1))
    assert invoice.status == Invoice.Status.DRAFT
    assert lines_of(invoice) == [
        ("cpu", Decimal("0.04")),
        ("memory", Decimal("0.03")),
        ("network_egress", Decimal("0.20")),
    ]
    assert (invoice.usage_fee, invoice.total_amount) == (Decimal("0.27"), Decimal("0.27"))
    assert invoice.finalise_after == AFTER_MAY


def test_drafting_twice_gives_the_same_draft() -> None:
    account = open_account(plan_code="team")
    record_first_invoice(account.pk)
    first = draft(account)
    before = [list(table.objects.values()) for table in (Invoice, CreditEntry)]
    assert draft(account) == first
    assert [list(table.objects.values()) for table in (Invoice, CreditEntry)] == before
    assert InvoiceLine.objects.count() == 4


def test_drafting_again_brings_a_draft_up_to_date() -> None:
    account = open_account()
    assert draft(account, now=OPENED).usage_fee == 0
    record_first_invoice(account.pk)
    assert draft(account).usage_fee == Decimal("0.27")


@pytest.mark.parametrize(
    "period",
    [
        JUNE,  # has not begun
        Period(datetime(2026, 4, 1, tzinfo=UTC), MAY.start),  # before the account
        Period(MAY.start, MAY.start + timedelta(days=1)),  # no month
        Period(MAY.start, JUNE.end),
    ],
)
def test_a_period_that_is_not_an_open_month_is_refused(period: Period) -> None:
    account = open_account()
    with pytest.raises(services.PeriodNotOpenError):
        draft(account, period, now=NOON)
    assert not Invoice.objects.exists()


def test_the_month_after_an_open_one_can_be_drafted_and_waits_for_it() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    record_usage(account.pk, JUNE.start, cpu_s=10**6)
    read_streams_until(JUNE.end + timedelta(days=1))
    june = draft(account, JUNE, now=JUNE.end)
    with pytest.raises(services.InvoiceNotReadyError, match="still open"):
        services.finalise_invoice(june.pk, now=JUNE.end + timedelta(days=1))
    assert finalise(draft(account)).number == "2026-000001"
    assert finalise(june, now=JUNE.end + timedelta(days=1)).number == "2026-000002"


def test_a_final_invoice_is_numbered_and_pending_and_closes_its_period() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    invoice = finalise(draft(account))
    assert (invoice.status, invoice.number) == (Invoice.Status.PENDING, "2026-000001")
    assert (invoice.finalised_at, invoice.paid_at) == (AFTER_MAY, None)
    assert invoice.amount_due == Decimal("0.27")
    account.refresh_from_db()
    assert account.open_period == JUNE
    assert AccountRegistration.objects.get().frozen_until == MAY.end


def test_finalising_twice_changes_nothing() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    invoice = finalise(draft(account))
    before = everything()
    later = AFTER_MAY + timedelta(days=1)
    assert finalise(invoice, now=later) == invoice
    assert draft(account, now=later) == invoice
    assert everything() == before


def test_credits_pay_usage_and_not_the_fee() -> None:
    account = open_account(plan_code="professional")
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    invoice = finalise(draft(account))
    assert lines_of(invoice)[0] == ("fee", Decimal(99))
    assert invoice.credits_used == invoice.usage_fee == Decimal("0.27")
    assert (invoice.subscription_fee, invoice.total_amount) == (99, 99)
    assert list(CreditEntry.objects.values_list("kind", "amount", "invoice")) == [
        ("grant", 100, None),
        ("use", Decimal("-0.27"), invoice.pk),
        ("expire", Decimal("-99.73"), None),
    ]


def test_credits_of_two_plans_are_used_oldest_first() -> None:
    account = open_account(plan_code="professional")
    services.subscribe(account.pk, plan_code="team", now=datetime(2026, 5, 17, tzinfo=UTC))
    record_usage(account.pk, cpu_s=10**7)  # 120.00
    read_streams_until(AFTER_MAY)
    invoice = finalise(draft(account))
    assert invoice.credits_used == 120
    assert lines_of(invoice)[:2] == [("fee", Decimal("51.10")), ("fee", Decimal("144.68"))]
    uses = CreditEntry.objects.filter(kind="use").values_list("amount", flat=True)
    assert list(uses) == [Decimal("-51.61"), Decimal("-68.39")]


def test_a_total_of_zero_is_paid_at_once() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1)
    read_streams_until(AFTER_MAY)
    invoice = finalise(draft(account))
    assert (invoice.status, invoice.paid_at) == (Invoice.Status.PAID, AFTER_MAY)
    assert lines_of(invoice) == [("cpu", Decimal(0))]


def test_no_lines_make_no_invoice_and_close_the_period() -> None:
    account = open_account()
    record_usage(account.pk, disk_write_bytes=5, ingress_bytes=7)  # not charged, by design
    read_streams_until(AFTER_MAY)
    assert services.finalise_invoice(draft(account).pk, now=AFTER_MAY) is None
    assert not Invoice.objects.exists()
    assert not NumberSeries.objects.exists()
    account.refresh_from_db()
    assert account.open_period == JUNE
    with pytest.raises(services.PeriodNotOpenError):
        draft(account)


def test_a_fee_of_zero_makes_no_line() -> None:
    assert lines_of(draft(open_account(plan_code="developer"))) == []


def test_tax_is_added_to_what_credits_leave() -> None:
    account = services.open_account(name="Ada", now=OPENED, tax=Tax(Decimal("0.19")))
    services.subscribe(account.pk, plan_code="professional", now=OPENED)
    record_first_invoice(account.pk)
    invoice = draft(account)
    assert (invoice.tax, invoice.total_amount) == (Decimal("18.81"), Decimal("117.81"))
    assert invoice.tax_rate == Decimal("0.19")


def test_the_grace_is_waited_for_to_its_end() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    invoice = draft(account)
    with pytest.raises(services.InvoiceNotReadyError, match="grace"):
        services.finalise_invoice(invoice.pk, now=AFTER_MAY - timedelta(microseconds=1))
    finalise(invoice)


@pytest.mark.parametrize("read_until", [None, MAY.end, AFTER_MAY - timedelta(seconds=1)])
def test_a_host_that_is_not_read_to_the_end_of_the_grace_is_waited_for(
    read_until: datetime | None,
) -> None:
    account = open_account()
    record_first_invoice(account.pk)
    StreamCursor.objects.update(collected_until=read_until)
    invoice = draft(account)
    before = everything()
    with pytest.raises(services.InvoiceNotReadyError, match=f"readings of host of {account.pk}"):
        services.finalise_invoice(invoice.pk, now=AFTER_MAY)
    assert everything() == before
    assert AccountRegistration.objects.get().frozen_until is None


def test_numbers_begin_anew_each_year_and_leave_no_gap() -> None:
    numbers = []
    for year in (2026, 2027):
        for name in ("Ada", "Eve"):
            account = services.open_account(name=name, now=datetime(year, 11, 1, tzinfo=UTC))
            at = account.open_period_start
            record_usage(account.pk, at, cpu_s=10**6)
            read_streams_until(datetime(year + 1, 1, 1, tzinfo=UTC))
            invoice = draft(account, account.open_period, now=account.open_period_end)
            numbers.append(finalise(invoice, now=invoice.finalise_after).number)
    assert numbers == ["2026-000001", "2026-000002", "2027-000001", "2027-000002"]


def test_a_line_tells_all_its_amount_rests_on() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    line = draft(account).lines.get(meter="network_egress")
    assert (int(line.quantity), line.base_unit) == (10 * GB, "network_tx_bytes")
    assert (line.unit, int(line.unit_size), line.unit_price) == (
        "network_egress_gb",
        GB,
        Decimal("0.02"),
    )
    assert line.exact_quantity == 10
    assert line.period == MAY


def change_prices(at: datetime, unit_price: str) -> None:
    book = PriceBook.objects.get(code="default")
    book.versions.update(effective_to=at)
    version = PriceBookVersion.objects.create(book=book, effective_from=at)
    Price.objects.create(version=version, meter="cpu", unit_price=Decimal(unit_price))


def test_usage_is_priced_at_the_version_in_force_at_its_windows_start() -> None:
    account = open_account()
    record_usage(account.pk, NOON, cpu_s=10**6)
    record_usage(account.pk, NOON + timedelta(minutes=15), cpu_s=10**6)
    # In the middle of the first window: that one keeps the old price.
    change_prices(NOON + timedelta(minutes=7), "0.00001")
    invoice = draft(account)
    assert lines_of(invoice) == [("cpu", Decimal(12)), ("cpu", Decimal(10))]
    cut = NOON + timedelta(minutes=15)
    assert [line.period for line in invoice.lines.all()] == [
        Period(MAY.start, cut),
        Period(cut, MAY.end),
    ]
    read_streams_until(AFTER_MAY)
    assert finalise(invoice).total_amount == 22


def test_a_change_of_plan_with_the_same_prices_leaves_one_line_a_meter() -> None:
    account = open_account(plan_code="professional")
    services.subscribe(account.pk, plan_code="team", now=NOON)
    record_usage(account.pk, NOON - timedelta(hours=1), cpu_s=10**6)
    record_usage(account.pk, NOON + timedelta(hours=1), cpu_s=10**6)
    assert lines_of(draft(account))[2:] == [("cpu", Decimal(24))]


def test_usage_when_no_prices_were_in_force_is_not_given_away() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    PriceBookVersion.objects.update(effective_to=NOON)
    with pytest.raises(services.UsageUnpricedError, match=r"cpu .* no_prices_in_force"):
        services.finalise_invoice(draft(account).pk, now=AFTER_MAY)


def test_usage_without_a_price_in_the_accounts_currency_is_not_given_away() -> None:
    account = services.open_account(name="Ada", now=OPENED, currency="EUR")
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    with pytest.raises(services.UsageUnpricedError, match=r"cpu .* no_price_in_currency"):
        services.finalise_invoice(draft(account).pk, now=AFTER_MAY)


def test_the_table_refuses_a_second_invoice_and_an_overlapping_one() -> None:
    account = open_account()
    invoice = draft(account)
    for start, end in ((MAY.start, MAY.end), (NOON, JUNE.end)):
        with pytest.raises(IntegrityError), transaction.atomic():
            Invoice.objects.create(
                account=account,
                period_start=start,
                period_end=end,
                currency="USD",
                drafted_at=NOON,
                computed_at=NOON,
                finalise_after=end,
            )
    assert Invoice.objects.get() == invoice


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"total_amount": 1, "amount_due": 1}, "invoice_total_is_the_sum_of_its_parts"),
        ({"amount_due": 1}, "invoice_due_is_its_total"),
        ({"credits_used": 1, "adjustments": 1}, "discounts_and_credits_pay_usage_only"),
        ({"status": "pending"}, "final_invoice_has_a_number_and_a_draft_has_none"),
        ({"number": "1"}, "final_invoice_has_a_number_and_a_draft_has_none"),
        ({"paid_at": NOON}, "paid_invoice_says_when"),
    ],
)
def test_the_table_refuses_figures_that_cannot_be(
    change: dict[str, object], constraint: str
) -> None:
    invoice = draft(open_account())
    with pytest.raises(IntegrityError, match=constraint):
        Invoice.objects.filter(pk=invoice.pk).update(**change)


@pytest.mark.parametrize(("adjustments", "total"), [("-1", "-1")])
def test_the_table_refuses_a_negative_total(adjustments: str, total: str) -> None:
    invoice = draft(open_account())
    with pytest.raises(IntegrityError, match="invoice_figures_are_not_negative"):
        Invoice.objects.filter(pk=invoice.pk).update(
            adjustments=Decimal(adjustments), total_amount=Decimal(total), amount_due=Decimal(total)
        )
