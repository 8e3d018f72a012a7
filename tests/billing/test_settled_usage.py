from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db.models import F

from billing import services
from billing.models import Account, Price, PriceBookVersion
from billing.queries import CurrentUsage, current_usage, preview_period
from metering.meters import Meter
from metering.models import DailyUsageTotal, SettledDays, UsageRecord
from metering.queries import coverage
from metering.summaries import summarise_touched_days
from tests.billing.price_lists import make_book
from tests.billing.usage import JUNE, OPENED, open_account, record_usage

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 20, 9, tzinfo=UTC)
CHANGE = datetime(2026, 6, 10, 7, 45, tzinfo=UTC)
"""A window's edge inside a day that is settled."""


def use_all_month(account: Account) -> None:
    for day in range(1, 21):
        for hour in (7, 8):
            at = datetime(2026, 6, day, hour, tzinfo=UTC)
            record_usage(account.pk, at, cpu_s=100 * day, memory_gb_s=50, egress_bytes=day * 2**28)
    summarise_touched_days(now=NOW)
    settled = SettledDays.objects.get(account=account.pk)
    assert settled.until == datetime(2026, 6, 18, tzinfo=UTC).date()


def current(account: Account) -> CurrentUsage:
    return current_usage(account.pk, now=NOW)


def assert_it_is_what_the_invoice_would_say(account: Account) -> None:
    # A preview reads records only, as an invoice does.
    found, invoice = current(account), preview_period(account, JUNE)
    assert found.usage == invoice.rating.usage
    assert found.cost.raw_cost == invoice.rating.raw_cost
    assert found.total_amount == invoice.totals.total_amount
    assert found.coverage == coverage(account.pk, JUNE)
    assert found.coverage.running_ms == 40 * 800_000


def test_current_usage_is_what_the_invoice_would_say() -> None:
    account = open_account(plan_code="professional")
    use_all_month(account)
    assert_it_is_what_the_invoice_would_say(account)


def test_a_price_that_changes_inside_a_settled_day_holds_from_its_window_on() -> None:
    account = open_account()
    book = make_book("own", account=account, cpu="0.01", memory="0.01", network_egress="0.01")
    book.versions.update(effective_to=CHANGE)
    dearer = PriceBookVersion.objects.create(book=book, effective_from=CHANGE)
    for meter in (Meter.CPU, Meter.MEMORY, Meter.NETWORK_EGRESS):
        Price.objects.create(version=dearer, meter=meter, unit_price=Decimal(1), charge="per_unit")
    terms = services.AgreedTerms(fee=Decimal(0), price_book=book)
    services.subscribe(account.pk, plan_code="enterprise", now=OPENED, agreed=terms)
    use_all_month(account)
    assert_it_is_what_the_invoice_would_say(account)
    # 9 days and 7 o'clock of the tenth at the one price, its 8 o'clock and 10 days at the other.
    cheap_s = 2 * sum(100 * day for day in range(1, 10)) + 1000
    dear_s = 1000 + 2 * sum(100 * day for day in range(11, 21))
    cost = current(account).cost_by_meter[Meter.CPU]
    assert cost == Decimal("0.01") * cheap_s + dear_s


def test_settled_days_are_read_from_their_totals_and_invoices_are_not() -> None:
    account = open_account()
    use_all_month(account)
    before, invoice = current(account), preview_period(account, JUNE)
    assert UsageRecord.objects.filter(window_start__lt=NOW - timedelta(days=10)).update(
        cpu_ns=F("cpu_ns") + 1
    )
    assert current(account).usage == before.usage
    assert preview_period(account, JUNE).rating.usage != invoice.rating.usage
    DailyUsageTotal.objects.update(cpu_ns=F("cpu_ns") + 1)
    assert current(account).usage != before.usage
