from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import IntegrityError

from billing import services
from billing.models import Account
from metering.models import AccountRegistration
from metering.period import Period
from tests.billing.usage import NOON, OPENED, open_account

pytestmark = pytest.mark.django_db

ACCOUNT_ID = UUID("11111111-1111-4111-8111-111111111111")


def test_an_account_opens_in_its_own_month_and_is_known_to_metering() -> None:
    account = services.open_account(name="Ada", now=OPENED, time_zone="America/New_York")
    # The first of May in UTC is still the thirtieth of April in New York.
    assert account.open_period == Period(
        datetime(2026, 4, 1, 4, tzinfo=UTC), datetime(2026, 5, 1, 4, tzinfo=UTC)
    )
    registration = AccountRegistration.objects.get(account_id=account.pk)
    assert (registration.time_zone, registration.registered_at) == ("America/New_York", OPENED)


def test_opening_an_account_twice_changes_nothing() -> None:
    first = services.open_account(name="Ada", now=OPENED, account_id=ACCOUNT_ID)
    second = services.open_account(name="Eve", now=NOON, account_id=ACCOUNT_ID)
    assert first == second
    assert Account.objects.get().name == "Ada"
    assert AccountRegistration.objects.get().registered_at == OPENED


@pytest.mark.parametrize("time_zone", ["", "Mars/Olympus", "../etc/passwd", "UTC+1"])
def test_an_unknown_time_zone_is_refused(time_zone: str) -> None:
    with pytest.raises(services.UnknownTimeZoneError):
        services.open_account(name="Ada", now=OPENED, time_zone=time_zone)
    assert not Account.objects.exists()


def test_a_currency_that_is_no_code_is_refused_by_the_table() -> None:
    account = open_account()
    with pytest.raises(IntegrityError, match="account_currency_is_one_of_iso_4217"):
        Account.objects.filter(pk=account.pk).update(currency="usd")


def test_parking_keeps_the_first_reason_and_unparking_clears_it() -> None:
    account = services.open_account(name="Ada", now=OPENED)
    services.park_account(account.pk, reason="first", now=OPENED)
    services.park_account(account.pk, reason="second", now=NOON)
    account.refresh_from_db()
    assert (account.parked_reason, account.parked_at) == ("first", OPENED)
    services.unpark_account(account.pk)
    services.unpark_account(account.pk)
    account.refresh_from_db()
    assert (account.parked_reason, account.parked_at) == ("", None)
