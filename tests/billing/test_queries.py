from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from billing import queries, services
from billing.models import Account, PriceBook, PriceBookVersion
from billing.money import Money
from billing.rating import Unpriced
from metering.meters import GB, Meter
from metering.period import WINDOW
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

NOW = NOON + timedelta(hours=1)


def test_current_usage_is_that_of_the_month_so_far() -> None:
    account, other = open_account("Ada", plan_code="professional"), open_account("Eve")
    record_first_invoice(account.pk)
    record_usage(account.pk, JUNE.start, cpu_s=1)
    record_usage(other.pk, cpu_s=5000)
    current = queries.current_usage(account.pk, now=NOW)
    assert current.period == MAY
    assert current.as_of == JUNE.start + WINDOW
    assert current.plan.code == "professional"
    assert current.usage == {
        Meter.CPU: 3600 * 10**9,
        Meter.MEMORY: 7200 * GB * 1000,
        Meter.NETWORK_EGRESS: 10 * GB,
    }
    assert current.cost.raw_cost == Fraction("0.272")
    assert current.cost.credits_used == current.cost.usage_fee == Money(Decimal("0.27"), "USD")
    assert current.cost.final_cost == Money.zero("USD")
    assert current.remaining_credits == Money(Decimal("99.73"), "USD")
    assert (current.coverage.running_ms, current.coverage.measured_ms) == (800_000, 600_000)


def test_an_account_without_subscription_or_usage_has_empty_figures() -> None:
    current = queries.current_usage(open_account().pk, now=NOW)
    assert (current.as_of, current.usage, current.unpriced) == (None, {}, ())
    assert current.plan.code == "developer"
    assert current.cost.raw_cost == 0
    assert current.remaining_credits == Money.zero("USD")


def test_what_is_not_charged_is_shown_with_the_reason() -> None:
    account = open_account()
    record_usage(account.pk, disk_write_bytes=5, ingress_bytes=7)
    unpriced = queries.current_usage(account.pk, now=NOW).unpriced
    assert [(entry.meter, entry.quantity, entry.reason) for entry in unpriced] == [
        (Meter.NETWORK_INGRESS, 7, Unpriced.METER_NOT_CHARGED),
        (Meter.DISK_WRITE, 5, Unpriced.METER_NOT_CHARGED),
    ]


def test_an_unknown_account_is_not_found() -> None:
    with pytest.raises(Account.DoesNotExist):
        queries.current_usage(open_account().pk.__class__(int=0), now=NOW)


def test_current_cost_and_invoice_are_the_same_sum() -> None:
    account = open_account(plan_code="team")
    record_first_invoice(account.pk)
    record_usage(account.pk, NOON + WINDOW, cpu_s=12345, memory_gb_s=678, egress_bytes=GB // 3)
    cost = queries.current_usage(account.pk, now=NOW).cost
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    final = services.finalise_invoice(draft.pk, now=AFTER_MAY)
    assert final is not None
    assert (cost.usage_fee.amount, cost.credits_used.amount) == (
        final.usage_fee,
        final.credits_used,
    )


def test_a_version_without_any_price_gives_nothing_away() -> None:
    account = open_account()
    record_first_invoice(account.pk)
    PriceBookVersion.objects.update(effective_to=OPENED)
    PriceBook.objects.get().versions.create(effective_from=OPENED)
    unpriced = queries.preview_period(account, MAY).rating.unpriced
    assert {entry.reason for entry in unpriced} == {Unpriced.NO_PRICES_IN_FORCE}
