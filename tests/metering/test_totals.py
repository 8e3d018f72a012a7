from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest

from metering.period import WINDOW, Period
from metering.queries import usage_totals
from metering.totals import usage_of_spans
from tests.billing.usage import JUNE, MAY, NOON, open_account, record_usage

pytestmark = pytest.mark.django_db


def test_each_span_has_what_its_account_used_in_it() -> None:
    accounts = [open_account(f"{number}") for number in range(3)]
    for number, account in enumerate(accounts):
        for at in (MAY.start, NOON, JUNE.start - WINDOW, JUNE.start):
            record_usage(
                account.pk,
                at,
                cpu_s=number * 7 + 1,
                memory_gb_s=number,
                egress_bytes=number * 11,
                ingress_bytes=3,
                disk_write_bytes=5,
            )
    early, late = Period(MAY.start, NOON), Period(NOON, MAY.end)
    spans = [
        (account.pk, span)
        for account in accounts
        for span in (MAY, early, late, JUNE, Period(JUNE.end, JUNE.end + WINDOW))
    ]
    assert usage_of_spans(spans) == [usage_totals(*span) for span in spans]
    assert usage_of_spans(spans)[0] != {}


def test_no_span_and_an_unknown_account_have_no_usage() -> None:
    assert usage_of_spans([]) == []
    assert usage_of_spans([(uuid4(), MAY)]) == [{}]


@pytest.mark.parametrize("windows", [1, 9 * 96, 10 * 96 - 1, 9 * 96 + 48, 31 * 96 - 1])
def test_wherever_a_period_is_split_the_parts_have_what_the_whole_has(windows: int) -> None:
    account = open_account()
    for at in (MAY.start, NOON, MAY.end - WINDOW):
        record_usage(account.pk, at, cpu_s=17, egress_bytes=23)
    cut = MAY.start + windows * WINDOW
    parts = usage_of_spans(
        [(account.pk, Period(MAY.start, cut)), (account.pk, Period(cut, MAY.end))]
    )
    whole = Counter(parts[0]) + Counter(parts[1])
    assert whole == usage_totals(account.pk, MAY)
