from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from pytest_django.fixtures import Settings

from billing import services
from billing.credits import CreditKind
from billing.models import Account, Invoice, TopUp
from billing.services.top_ups import prepaid_balance
from payments.models import Collection, DunningCase, PaymentAttempt
from payments.services.settling import settle_bill
from payments.services.top_ups import collect_due_top_ups, take_back_failed_top_ups
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, CARD, account_with_card, collect, invoice_of
from tests.payments.test_collecting import HELD_S

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BAD = "pm_card_chargeCustomerFail"


def sweep(now: datetime, *, until: datetime | None = None) -> None:
    """Do what the sweeps do with top-ups."""
    while True:
        services.request_due_top_ups(now)
        take_back_failed_top_ups(now)
        collect_due_top_ups(now)
        collect(now)
        if until is None or now >= until:
            return
        now += timedelta(minutes=5)


def automatic(stripe: LocalStripe, token: str = CARD, *, amount: str = "20") -> Account:
    """Open an account that is to have 10 of prepaid credit at least."""
    account = account_with_card(stripe, token)
    return services.set_automatic_top_up(account.pk, threshold=Decimal(10), amount=Decimal(amount))


def asked_for(account: Account, amount: str = "50") -> TopUp:
    return services.request_top_up(account.pk, Decimal(amount), now=BILLED)


def spend(account: Account, amount: str, reference: str) -> None:
    by = services.ByHand("Spent", reference)
    services.take_prepaid(account.pk, Decimal(amount), by=by, now=BILLED)


def test_a_top_up_is_charged_and_granted_once(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    top_up = asked_for(account)
    for _ in range(3):
        sweep(BILLED)
    top_up.refresh_from_db()
    assert prepaid_balance(account) == 50
    assert [charge["amount"] for charge in stripe.charges()] == [5000]
    assert top_up.invoice is not None
    assert top_up.invoice.status == "paid"
    assert top_up.allocations.get().amount == 50


def test_an_answer_that_does_not_come_charges_it_once(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    asked_for(account)
    stripe.fault("timeout_after_success", "PostInvoicesInvoicePay", seconds=HELD_S)
    sweep(BILLED, until=BILLED + HOUR)
    assert prepaid_balance(account) == 50
    assert len(stripe.charges()) == 1


def test_an_automatic_top_up_comes_whenever_too_little_is_left(stripe: LocalStripe) -> None:
    account = automatic(stripe)
    sweep(BILLED, until=BILLED + HOUR)
    assert prepaid_balance(account) == 20
    assert len(stripe.charges()) == 1
    spend(account, "15", "s1")
    sweep(BILLED + HOUR)
    assert prepaid_balance(account) == 25
    assert len(stripe.charges()) == 2


def test_an_account_is_charged_so_often_in_24_hours_at_most(
    stripe: LocalStripe, settings: Settings
) -> None:
    settings.AUTOMATIC_TOP_UPS_A_DAY = 3
    account = automatic(stripe)
    for number in range(6):
        sweep(BILLED + number * HOUR)
        if prepaid_balance(account) >= 20:
            spend(account, "20", f"s{number}")
    assert len(stripe.charges()) == 3
    assert TopUp.objects.filter(grant__isnull=True, given_up_at__isnull=True).count() == 1
    # The first of them is a day ago.
    sweep(BILLED + DAY - timedelta(seconds=1))
    assert len(stripe.charges()) == 3
    sweep(BILLED + DAY)
    assert len(stripe.charges()) == 4
    # What a person asks for is charged all the same.
    asked_for(account)
    sweep(BILLED + DAY)
    assert len(stripe.charges()) == 5


def test_cards_that_fail_count_too_and_nothing_else_is_marked(
    stripe: LocalStripe, settings: Settings
) -> None:
    settings.AUTOMATIC_TOP_UPS_A_DAY = 2
    account = automatic(stripe, BAD)
    # 30 cents: too little to be charged alone, and not touched by a top-up that fails.
    invoice = invoice_of(account, cpu_s=25_000)
    sweep(BILLED, until=BILLED + 6 * HOUR)
    attempts = PaymentAttempt.objects.order_by("started_at")
    assert [attempt.status for attempt in attempts] == ["failed", "failed"]
    # Not one right after the other.
    assert attempts[1].started_at - attempts[0].started_at >= HOUR
    assert set(Collection.objects.values_list("status", flat=True)) == {"void"}
    assert stripe.charges() == []
    # Two were given up, and the third waits for its day.
    assert TopUp.objects.filter(given_up_at__isnull=False).count() == 2
    assert TopUp.objects.count() == 3
    invoice.refresh_from_db()
    assert invoice.status == "pending"
    assert not DunningCase.objects.exists()
    assert Invoice.objects.count() == 1


def test_what_is_given_up_cannot_be_paid_at_the_provider(stripe: LocalStripe) -> None:
    automatic(stripe, BAD)
    sweep(BILLED, until=BILLED + timedelta(minutes=10))
    collection = Collection.objects.get()
    with pytest.raises(RuntimeError, match="void"):
        stripe.pay(str(collection.provider_id), token=CARD)


def test_what_the_customer_pays_before_it_is_taken_back_is_granted(stripe: LocalStripe) -> None:
    account = automatic(stripe, BAD)
    sweep(BILLED)
    collection = Collection.objects.get()
    stripe.pay(str(collection.provider_id), token=CARD)
    sweep(BILLED + timedelta(minutes=5))
    collection.refresh_from_db()
    assert collection.status == Collection.Status.PAID
    assert prepaid_balance(account) == 20
    assert TopUp.objects.get().grant is not None


def test_a_customers_own_top_up_may_be_paid_on_the_page_for_a_week(stripe: LocalStripe) -> None:
    account = account_with_card(stripe, BAD)
    top_up = asked_for(account)
    sweep(BILLED)
    collection = Collection.objects.get()
    assert collection.status == Collection.Status.OPEN
    assert collection.hosted_url
    sweep(BILLED + 7 * DAY - HOUR)
    stripe.pay(str(collection.provider_id), token=CARD)
    settle_bill(str(collection.provider_id), now=BILLED + 7 * DAY - HOUR)
    sweep(BILLED + 8 * DAY)
    assert prepaid_balance(account) == 50
    top_up.refresh_from_db()
    assert top_up.given_up_at is None


def test_after_a_week_it_is_given_up(stripe: LocalStripe) -> None:
    top_up = asked_for(account_with_card(stripe, BAD))
    sweep(BILLED)
    sweep(BILLED + 7 * DAY)
    sweep(BILLED + 7 * DAY + timedelta(minutes=5))
    top_up.refresh_from_db()
    assert top_up.given_up_at
    assert Collection.objects.get().status == Collection.Status.VOID
    assert PaymentAttempt.objects.count() == 1


@pytest.mark.parametrize("is_off", [True, False])
def test_what_nobody_wants_any_more_is_given_up(
    stripe: LocalStripe, settings: Settings, *, is_off: bool
) -> None:
    settings.AUTOMATIC_TOP_UPS_A_DAY = 1
    account = automatic(stripe)
    sweep(BILLED)
    spend(account, "20", "s1")
    sweep(BILLED + HOUR)
    assert TopUp.objects.filter(given_up_at__isnull=True, grant__isnull=True).exists()
    if is_off:
        services.set_automatic_top_up(account.pk, threshold=None, amount=None)
    else:
        gift = services.Gift(CreditKind.PREPAID, Decimal(30), "Sorry", "g1")
        services.grant_credit(account.pk, gift, now=BILLED)
    sweep(BILLED + DAY)
    assert len(stripe.charges()) == 1
    assert not TopUp.objects.filter(given_up_at__isnull=True, grant__isnull=True).exists()


def test_less_than_the_smallest_charge_is_never_charged(stripe: LocalStripe) -> None:
    account = automatic(stripe, amount="0.30")
    by_hand = asked_for(account, "0.49")
    sweep(BILLED, until=BILLED + HOUR)
    by_hand.refresh_from_db()
    assert by_hand.given_up_at
    assert TopUp.objects.count() == 2
    assert not Collection.objects.exists()
    # Another amount takes its place.
    services.set_automatic_top_up(account.pk, threshold=Decimal(10), amount=Decimal(20))
    sweep(BILLED + HOUR, until=BILLED + HOUR + timedelta(minutes=5))
    assert prepaid_balance(account) == 20


def test_without_a_provider_they_wait(settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    assert collect_due_top_ups(BILLED) == 0


def test_what_is_given_up_before_it_is_charged_is_not_charged(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    top_up = asked_for(account)
    collect_due_top_ups(BILLED)
    services.give_up_top_up(top_up.pk, now=BILLED)
    sweep(BILLED, until=BILLED + HOUR)
    assert stripe.charges() == []
    assert Collection.objects.get().status == Collection.Status.VOID
    assert prepaid_balance(account) == 0
