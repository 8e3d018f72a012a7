from __future__ import annotations

from datetime import timedelta

import pytest

from billing import services
from billing.lifecycle import InvoiceStatus
from payments.models import (
    Customer,
    DunningCase,
    DunningStep,
    PaymentAttempt,
    PlatformRequest,
)
from payments.services.collections import take_back
from payments.services.dunning import refresh_account
from payments.services.dunning_steps import take_due_steps
from payments.services.methods import take_methods
from payments.services.settling import settle_bill
from tests.local_stripe import LocalStripe
from tests.payments.arrears import Debtor, another_invoice_of, days, dun
from tests.payments.month import BILLED, collect

pytestmark = pytest.mark.django_db

Standing = Customer.Standing
Ending = DunningCase.Ending
Trigger = PaymentAttempt.Trigger
WHY = services.Because("test")


def test_a_failed_payment_opens_a_case_and_the_account_is_past_due(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAYMENT_FAILED, Standing.PAST_DUE)
    case = debtor.case
    assert (case.opened_at, case.next_at, case.closed_at) == (BILLED, days(1), None)
    assert debtor.asked == []


def test_an_account_that_pays_has_no_case(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe, "pm_card_visa")
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert not DunningCase.objects.exists()


def test_the_whole_schedule_to_the_end(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    seen = []
    for day in range(1, 40):
        for hour in (0, 1, 23):
            now = days(day) + timedelta(hours=hour)
            dun(now)
            # Each of them repeated changes nothing.
            dun(now)
        seen.append((day, len(debtor.attempts), debtor.status, debtor.standing))
    assert [attempt.started_at for attempt in debtor.attempts] == [
        days(day) for day in (0, 1, 3, 7, 14)
    ]
    assert [attempt.trigger for attempt in debtor.attempts] == [
        Trigger.FINALISED,
        *[Trigger.SCHEDULE] * 4,
    ]
    assert seen[12] == (13, 4, InvoiceStatus.PAYMENT_FAILED, Standing.PAST_DUE)
    assert seen[13] == (14, 5, InvoiceStatus.PAYMENT_FAILED, Standing.SUSPENDED)
    assert seen[26] == (27, 5, InvoiceStatus.PAYMENT_FAILED, Standing.SUSPENDED)
    assert seen[27] == (28, 5, InvoiceStatus.UNCOLLECTIBLE, Standing.SUSPENDED)
    assert seen[38] == (39, 5, InvoiceStatus.UNCOLLECTIBLE, Standing.SUSPENDED)
    case = debtor.case
    assert (case.ending, case.closed_at, case.next_at) == (Ending.WRITTEN_OFF, days(28), None)
    assert debtor.asked == ["stop"]
    (told,) = stripe.log("PostInvoicesInvoiceMarkUncollectible")
    assert told["status"] == 200
    assert stripe.charges() == []


def test_what_was_written_off_and_is_paid_late_lets_the_account_go_on(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14, 28):
        dun(days(day))
    assert debtor.standing == Standing.SUSPENDED
    stripe.pay(debtor.bill, token="pm_card_visa")  # noqa: S106 - a test card
    settle_bill(debtor.bill, now=days(50))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert debtor.asked == ["stop", "resume"]
    settle_bill(debtor.bill, now=days(51))
    dun(days(51))
    assert debtor.asked == ["stop", "resume"]
    assert len(stripe.charges()) == 1


def test_what_the_schedule_collects_ends_it(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    dun(days(1))
    stripe.become(debtor.card, "pm_card_visa")
    dun(days(3))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert (debtor.case.ending, debtor.case.closed_at) == (Ending.PAID, days(3))
    dun(days(30))
    assert len(debtor.attempts) == 3
    assert debtor.asked == []


def test_after_an_outage_one_retry_is_made_and_then_the_rest_in_order(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    # The sweep's first look, before the retry is answered.
    assert take_due_steps(days(40)) == 1
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PENDING_RETRY, Standing.PAST_DUE)
    assert take_due_steps(days(40)) == 0
    collect(days(40))
    assert take_due_steps(days(40)) == 1
    assert take_due_steps(days(40)) == 0
    assert len(debtor.attempts) == 2
    assert (debtor.status, debtor.standing) == (InvoiceStatus.UNCOLLECTIBLE, Standing.SUSPENDED)


def test_nobody_is_suspended_while_it_is_not_known_what_became_of_the_retry(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7):
        dun(days(day))
    stripe.become(debtor.card, "pm_card_visa")
    stripe.fault("reset_after_success", "PostInvoicesInvoicePay")
    stripe.fault("429", "GetInvoicesInvoice", nth=2, times=50)
    dun(days(14))
    assert debtor.attempts[-1].status == PaymentAttempt.Status.UNKNOWN
    dun(days(14.5))
    assert (debtor.standing, debtor.asked) == (Standing.PAST_DUE, [])
    stripe.clear_faults()
    dun(days(15))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert debtor.asked == []
    assert len(stripe.charges()) == 1


def test_a_changed_schedule_applies_from_the_next_step_on(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    dun(days(1))
    DunningStep.objects.all().delete()
    DunningStep.objects.create(after_days=2, action="retry")
    DunningStep.objects.create(after_days=5, action="suspend")
    take_due_steps(days(1.1))
    assert debtor.case.next_at == days(2)
    dun(days(2))
    dun(days(5))
    assert (len(debtor.attempts), debtor.standing) == (3, Standing.SUSPENDED)
    dun(days(100))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAYMENT_FAILED, Standing.SUSPENDED)
    assert debtor.case.next_at is None


def test_without_steps_a_case_waits(stripe: LocalStripe) -> None:
    DunningStep.objects.all().delete()
    debtor = Debtor(stripe)
    dun(days(100))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAYMENT_FAILED, Standing.PAST_DUE)


def test_a_new_card_is_charged_at_once_and_lets_a_suspended_account_go_on(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14):
        dun(days(day))
    assert (debtor.standing, debtor.asked) == (Standing.SUSPENDED, ["stop"])
    stripe.attach(debtor.customer_id, "pm_card_mastercard")
    now = days(15)
    take_methods(debtor.customer_id, now=now)
    assert debtor.status == InvoiceStatus.PENDING_RETRY
    assert debtor.attempts[-1].trigger == Trigger.NEW_CARD
    collect(now)
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert debtor.asked == ["stop", "resume"]
    assert len(stripe.charges()) == 1


def test_a_first_card_is_charged_at_once(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe, "")
    assert debtor.attempts[-1].failure_code == "no_payment_method"
    stripe.attach(debtor.customer_id, "pm_card_visa")
    take_methods(debtor.customer_id, now=days(0.1))
    collect(days(0.1))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)


def test_the_same_card_is_left_to_the_schedule(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    for _ in range(3):
        take_methods(debtor.customer_id, now=days(0.1))
        dun(days(0.1))
    assert len(debtor.attempts) == 1


def test_cards_that_are_tried_one_after_another_are_limited(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    for _ in range(8):
        stripe.attach(debtor.customer_id, "pm_card_chargeCustomerFail")
        take_methods(debtor.customer_id, now=days(0.1))
        collect(days(0.1))
    assert len(debtor.attempts) == 1 + 5
    # A day later there is another chance.
    dun(days(1.2))
    assert [attempt.trigger for attempt in debtor.attempts][-1] == Trigger.NEW_CARD


def test_a_retry_that_came_due_while_another_was_made_is_not_made_too(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    stripe.attach(debtor.customer_id, "pm_card_chargeCustomerFail")
    take_methods(debtor.customer_id, now=days(1))
    dun(days(1))
    dun(days(1))
    assert [attempt.trigger for attempt in debtor.attempts] == [
        Trigger.FINALISED,
        Trigger.NEW_CARD,
    ]
    assert debtor.case.next_at == days(3)


def test_a_retry_by_finance_is_made_and_leaves_the_schedule_as_it_is(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    services.retry_payment(debtor.invoice.pk, because=WHY, now=days(0.5))
    assert debtor.case.closed_at is None
    dun(days(0.5))
    assert len(debtor.attempts) == 2
    assert debtor.case.next_at == days(1)


def test_a_suspended_account_stays_so_until_all_of_its_invoices_are_paid(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14):
        dun(days(day))
    second = another_invoice_of(debtor.account)
    collect(days(31))
    refresh_account(debtor.account.pk, now=days(31))
    assert DunningCase.objects.filter(invoice=second, suspended_at=days(31)).exists()
    services.mark_paid(debtor.invoice.pk, because=WHY, now=days(31))
    dun(days(31.1))
    assert (debtor.standing, debtor.asked) == (Standing.SUSPENDED, ["stop"])
    services.mark_paid(second.pk, because=WHY, now=days(32))
    dun(days(32))
    assert (debtor.standing, debtor.asked) == (Standing.ACTIVE, ["stop", "resume"])


def test_what_staff_writes_off_does_not_suspend(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    services.write_off(debtor.invoice.pk, because=WHY, now=days(2))
    dun(days(2))
    assert (debtor.case.ending, debtor.standing) == (Ending.WRITTEN_OFF, Standing.ACTIVE)


def test_a_void_invoice_has_no_case_any_more(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    collection = debtor.attempts[-1].collection
    take_back(collection, reason="test", now=days(2))
    collect(days(2))
    services.void_invoice(debtor.invoice.pk, because=WHY, now=days(2))
    dun(days(2))
    assert (debtor.case.ending, debtor.standing) == (Ending.VOID, Standing.ACTIVE)


def test_a_case_is_found_by_the_sweep_where_nobody_called(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    DunningCase.objects.all().delete()
    Customer.objects.update(standing=Standing.ACTIVE)
    dun(days(0.1))
    assert (debtor.standing, debtor.case.opened_at) == (Standing.PAST_DUE, BILLED)


def test_a_failure_from_long_ago_is_counted_from_now(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    DunningCase.objects.all().delete()
    dun(days(200))
    assert (debtor.case.opened_at, len(debtor.attempts)) == (days(200), 1)
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAYMENT_FAILED, Standing.PAST_DUE)


def test_a_parked_account_is_left_alone(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    services.park_account(debtor.account.pk, reason="test", now=days(0))
    dun(days(40))
    assert (len(debtor.attempts), debtor.standing) == (1, Standing.PAST_DUE)
    services.unpark_account(debtor.account.pk)
    dun(days(40))
    assert len(debtor.attempts) == 2


def test_a_payment_to_be_confirmed_is_confirmed_on_the_providers_page(
    stripe: LocalStripe,
) -> None:
    debtor = Debtor(stripe, "pm_card_authenticationRequired")
    attempt = debtor.attempts[-1]
    assert attempt.status == PaymentAttempt.Status.ACTION_REQUIRED
    assert attempt.collection.hosted_url
    stripe.authenticate(debtor.bill)
    settle_bill(debtor.bill, now=days(0.2))
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert debtor.case.ending == Ending.PAID


def test_a_later_request_takes_the_place_of_one_that_waits(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14):
        dun(days(day))
    services.mark_paid(debtor.invoice.pk, because=WHY, now=days(14))
    dun(days(14) + timedelta(minutes=1))
    stop, resume = PlatformRequest.objects.order_by("pk")
    assert (stop.replaced_at, resume.replaced_at) == (days(14) + timedelta(minutes=1), None)
    assert (resume.action, resume.accepted_at) == ("resume", None)


def test_a_card_that_is_added_while_the_schedules_retry_runs_is_charged_after_it(
    stripe: LocalStripe,
) -> None:
    debtor = retried_with_a_new_card_meanwhile(stripe)
    # The retry was made with the old card, and its answer comes late.
    collect(days(1.1))
    assert debtor.attempts[-1].method_id == debtor.card
    assert debtor.status == InvoiceStatus.PAYMENT_FAILED
    dun(days(1.1))
    assert (debtor.attempts[-1].trigger, debtor.status) == (Trigger.NEW_CARD, InvoiceStatus.PAID)
    assert len(stripe.charges()) == 1


def test_control_without_a_look_at_the_cards_it_would_wait_for_the_schedule(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.payments.arrears.retry_on_new_cards", lambda _now: 0)
    debtor = retried_with_a_new_card_meanwhile(stripe)
    collect(days(1.1))
    dun(days(1.1))
    assert debtor.status == InvoiceStatus.PAYMENT_FAILED
    assert debtor.case.next_at == days(3)


def retried_with_a_new_card_meanwhile(stripe: LocalStripe) -> Debtor:
    """Let the schedule's retry go unanswered, and the customer add a card that pays."""
    debtor = Debtor(stripe)
    stripe.fault("reset_before", "PostInvoicesInvoicePay")
    stripe.fault("429", "GetInvoicesInvoice", nth=3, times=1)
    dun(days(1))
    assert debtor.attempts[-1].status == PaymentAttempt.Status.UNKNOWN
    stripe.attach(debtor.customer_id, "pm_card_visa")
    take_methods(debtor.customer_id, now=days(1))
    assert len(debtor.attempts) == 2
    return debtor
