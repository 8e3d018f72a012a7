"""How many statements each answer takes, however much there is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.caching import Kind, forget
from billing.models import Account, Invoice
from metering.models import SettledDays
from metering.period import Period
from metering.summaries import summarise_touched_days
from tests.api.calling import Api
from tests.billing.usage import JUNE, MAY, bill, open_account, record_usage

pytestmark = pytest.mark.django_db(transaction=True)

Clock = Callable[[datetime], None]

IN_JULY = datetime(2026, 7, 20, 9, tzinfo=UTC)
IN_AUGUST = datetime(2026, 8, 20, 9, tzinfo=UTC)
JULY = Period(JUNE.end, datetime(2026, 8, 1, tzinfo=UTC))
DAY = timedelta(days=1)
SINCE_MAY = "usage/history?start_date=2026-05-01&end_date={today}"
WEEK = "usage/history?start_date={week_ago}&end_date={today}&granularity=hour"
STATEMENTS = {
    "usage/current": 18,
    SINCE_MAY: 20,
    f"{SINCE_MAY}&granularity=month": 20,
    f"{SINCE_MAY}&group_by=sandbox": 22,
    f"{SINCE_MAY}&group_by=label&label=team": 22,
    WEEK: 17,
    f"{WEEK}&group_by=sandbox": 19,
    "usage/summary/current": 19,
    "usage/summary/previous": 13,
    "usage/summary/2026-05": 13,
    "subscription": 5,
    "invoices": 2,
}
"""One finds the key; three begin, pin and end the snapshot where there is one."""


def use(account: Account, period: Period, now: datetime, *, hours: range) -> None:
    """Use something every second day of the period up to now: a life in each of these hours."""
    at = period.start
    while at < min(now, period.end):
        for hour in hours:
            record_usage(account.pk, at + timedelta(hours=hour), cpu_s=100, egress_bytes=10**9)
        summarise_touched_days(now=min(at + DAY, now))
        at += 2 * DAY


def statements(api: Api, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        answer = api.get(path)
    assert answer.status_code == 200, answer.content
    return len(captured)


def counted(account: Account, api: Api, now: datetime) -> dict[str, int]:
    counts = {}
    days = {"today": f"{now:%Y-%m-%d}", "week_ago": f"{now - 7 * DAY:%Y-%m-%d}"}
    for path in STATEMENTS:
        forget(account.pk, *Kind)
        counts[path] = statements(api, path.format(**days))
    return counts


def account_in_july() -> Account:
    """Return an account with two invoices, in its third period."""
    account = open_account(plan_code="professional")
    for period in (MAY, JUNE, JULY):
        use(account, period, IN_JULY, hours=range(3, 5))
        if period is not JULY:
            bill(account, period)
    return account


def test_each_answer_takes_so_many_statements_however_much_there_is(set_clock: Clock) -> None:
    set_clock(IN_JULY)
    account = account_in_july()
    api = Api.by_key(account.pk, "read")
    assert counted(account, api, IN_JULY) == STATEMENTS
    # More sandboxes and lives, one more invoice, and a neighbour.
    account_in_july()
    use(account, JULY, IN_AUGUST, hours=range(6, 12))
    bill(account, JULY)
    use(account, Period(JULY.end, IN_AUGUST), IN_AUGUST, hours=range(6, 12))
    set_clock(IN_AUGUST)
    assert Invoice.objects.filter(account=account).count() == 3
    assert SettledDays.objects.get(account=account.pk).until == (IN_AUGUST - 2 * DAY).date()
    assert counted(account, api, IN_AUGUST) == STATEMENTS


def test_an_answer_that_is_kept_takes_the_one_that_finds_the_key(set_clock: Clock) -> None:
    set_clock(IN_JULY)
    account = account_in_july()
    api = Api.by_key(account.pk, "read")
    statements(api, "usage/current")
    assert statements(api, "usage/current") == 1
