from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import User
from stripe import StripeClient

from billing.lifecycle import InvoiceStatus
from billing.models import Invoice
from billing.money import Money
from billing.services import Because, lock_account
from payments.ledger import balances
from payments.models import (
    Collection,
    Difference,
    Dispute,
    Payment,
    PaymentAttempt,
    ProviderCall,
    Reconciliation,
    Refund,
    WebhookEvent,
)
from payments.provider import NoAnswerError
from payments.services import reconciling
from payments.services.anew import collect_anew
from payments.services.collecting import take_step
from payments.services.comparing import compare_bill
from payments.services.differences import settle_difference
from payments.services.receiving import Received, record_payment
from payments.services.reconciling import (
    Compared,
    begin_reconciliation,
    take_look,
)
from payments.services.sweeps import begin_due_collections
from payments.services.voiding import void_invoice
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import (
    BILLED,
    CARD,
    account_with_card,
    collect,
    collection_of,
    invoice_of,
)
from tests.payments.test_collecting import customer_id, status_of
from tests.payments.test_refunding import propose
from tests.payments.test_voiding import refused

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
SINCE = BILLED - HOUR
LATER = BILLED + timedelta(hours=2)
BAD = "pm_card_chargeCustomerFail"
WRONG = Because("Wrong")


def look(now: datetime = LATER, since: datetime = SINCE) -> Reconciliation:
    """Compare both sides to the end."""
    row = begin_reconciliation(since=since, now=now)
    while take_look(row.pk, now=now):
        pass
    row.refresh_from_db()
    assert row.ended_at == now
    assert row.claimed_until is None
    return row


def listed() -> dict[str, str]:
    """Return the open differences: what each is about, and its kind."""
    rows = Difference.objects.filter(settled_at__isnull=True)
    return dict(rows.values_list("subject", "kind"))


def sdk(stripe: LocalStripe) -> StripeClient:
    return StripeClient(API_KEY, base_addresses={"api": stripe.url})


def both_sides_agree(stripe: LocalStripe) -> bool:
    ours = balances(Payment.Method.PROVIDER)["USD"].balance.amount
    return ours * 100 == stripe.ledger()["usd"]["gross"]


@pytest.fixture(params=["events", "objects"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was missed be found by its events, or by comparing the objects alone."""
    if request.param == "objects":
        monkeypatch.setattr(reconciling, "_fetch_events", lambda *_, **__: 0)


def paid(stripe: LocalStripe) -> tuple[Invoice, Payment]:
    invoice = invoice_of(account_with_card(stripe))
    collect()
    return invoice, Payment.objects.get()


def unpaid(stripe: LocalStripe) -> tuple[Invoice, Collection]:
    """Return an invoice whose card failed, and which is open at the provider."""
    invoice = invoice_of(account_with_card(stripe, BAD))
    collect()
    return invoice, collection_of(invoice)


def test_where_both_sides_agree_nothing_is_done_and_nothing_listed(stripe: LocalStripe) -> None:
    stripe.set_clock(BILLED.timestamp())
    paid(stripe)
    calls = ProviderCall.objects.count()
    first = look()
    assert (first.invoices_compared, first.payments_compared, first.healed) == (1, 1, 0)
    assert first.differences == 0
    # Nothing delivered events here, so all that may change something are fetched, once.
    assert first.events_fetched == WebhookEvent.objects.count() > 0
    assert look(LATER + HOUR).events_fetched == 0
    assert ProviderCall.objects.count() == calls
    assert Payment.objects.count() == 1


@pytest.mark.usefixtures("_either_way")
def test_a_payment_that_nobody_told_us_of_is_found(stripe: LocalStripe) -> None:
    invoice, collection = unpaid(stripe)
    stripe.pay(str(collection.provider_id), token=CARD)
    look()
    assert status_of(invoice) == InvoiceStatus.PAID
    assert both_sides_agree(stripe)
    assert listed() == {}
    look(LATER + HOUR)
    assert Payment.objects.count() == 1


@pytest.mark.usefixtures("_either_way")
def test_refunds_and_disputes_that_nobody_told_us_of_are_found(stripe: LocalStripe) -> None:
    _, payment = paid(stripe)
    stripe.refund(payment.charge_id, 600)
    row = look()
    assert Refund.objects.get().status == "succeeded"
    assert row.refunds_compared == 1
    assert both_sides_agree(stripe)


def test_a_dispute_is_found_by_its_event_and_read_until_it_is_decided(stripe: LocalStripe) -> None:
    _, payment = paid(stripe)
    opened = stripe.dispute(payment.charge_id)
    look()
    assert Dispute.objects.get().status == "open"
    stripe.close_dispute(opened["id"], "lost")
    WebhookEvent.objects.all().delete()
    look(LATER + HOUR)
    assert Dispute.objects.get().status == "lost"
    assert both_sides_agree(stripe)


def test_what_was_voided_there_is_listed_until_ours_is_void(stripe: LocalStripe) -> None:
    invoice, collection = unpaid(stripe)
    sdk(stripe).v1.invoices.void_invoice(str(collection.provider_id))
    for hours in range(3):
        row = look(LATER + hours * HOUR)
        assert listed() == {str(collection.provider_id): "invoice_state_differs"}
        assert row.differences == 1
    void_invoice(invoice.pk, because=WRONG, now=LATER)
    look(LATER + 3 * HOUR)
    assert listed() == {}
    gone = Difference.objects.get()
    assert gone.settled_reason == "Gone at the look of 2026-06-01 05:15 UTC"
    assert gone.settled_by is None


def test_what_was_paid_there_without_money_is_a_persons_to_settle(stripe: LocalStripe) -> None:
    _, collection = unpaid(stripe)
    sdk(stripe).v1.invoices.pay(str(collection.provider_id), {"paid_out_of_band": True})
    for hours in range(2):
        look(LATER + hours * HOUR)
        assert listed() == {str(collection.provider_id): "payment_only_there"}
    clerk = User.objects.create_user("clerk")
    [difference] = Difference.objects.all()
    settle_difference(difference.pk, reason="Came in cash", user_id=clerk.pk, now=LATER)
    look(LATER + 2 * HOUR)
    assert listed() == {}
    assert Difference.objects.count() == 1


def test_what_somebody_sold_there_is_listed_from_both_ends(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    there = sdk(stripe).v1.invoices
    made = there.create({"customer": customer_id(account), "currency": "usd"})
    assert made.id
    line = {"amount": 700, "description": "A T-shirt"}
    there.add_lines(made.id, {"lines": [line]})  # type: ignore[list-item]
    look()
    # A draft asks for nothing.
    assert listed() == {}
    there.finalize_invoice(made.id)
    look(LATER + HOUR)
    assert listed() == {made.id: "invoice_only_there"}
    there.pay(made.id)
    look(LATER + 2 * HOUR)
    [charge] = stripe.charges()
    assert listed() == {
        made.id: "invoice_only_there",
        charge["payment_intent"]: "payment_only_there",
    }
    assert set(Difference.objects.values_list("account_id", flat=True)) == {account.pk}
    stripe.refund(charge["id"])
    look(LATER + 3 * HOUR)
    assert "refund_only_there" in listed().values()


def test_what_is_nobodys_of_ours_is_not_listed(stripe: LocalStripe) -> None:
    there = sdk(stripe)
    customer = there.v1.customers.create({"name": "Somebody"})
    stripe.attach(customer.id, CARD)
    made = there.v1.invoices.create({"customer": customer.id, "currency": "usd"})
    assert made.id
    line = {"amount": 700, "description": "Something else"}
    there.v1.invoices.add_lines(made.id, {"lines": [line]})  # type: ignore[list-item]
    there.v1.invoices.finalize_invoice(made.id)
    there.v1.invoices.pay(made.id)
    stripe.refund(stripe.charges()[0]["id"])
    assert look().payments_compared == 1
    assert listed() == {}


@pytest.mark.parametrize("is_final", [False, True])
def test_an_invoice_that_was_made_twice_there_is_undone(
    stripe: LocalStripe, *, is_final: bool
) -> None:
    invoice, collection = unpaid(stripe)
    there = sdk(stripe).v1.invoices
    twin = there.create(
        {
            "customer": customer_id(invoice.account),
            "currency": "usd",
            "metadata": {"collection_id": str(collection.pk)},
        }
    )
    assert twin.id
    if is_final:
        line = {"amount": 3600, "description": "Twice"}
        there.add_lines(twin.id, {"lines": [line]})  # type: ignore[list-item]
        there.finalize_invoice(twin.id)
    assert look().healed == 1
    with pytest.raises(RuntimeError, match=r"void|No such"):
        stripe.pay(twin.id, token=CARD)
    assert listed() == {}
    # Ours is still to be paid.
    stripe.pay(str(collection.provider_id), token=CARD)


def test_what_is_void_here_cannot_be_paid_there(stripe: LocalStripe) -> None:
    _, collection = unpaid(stripe)
    collection.parts.update(is_live=False)
    Collection.objects.filter(pk=collection.pk).update(status="void", ended_at=LATER, try_at=None)
    assert look().healed == 1
    with pytest.raises(RuntimeError, match="void"):
        stripe.pay(str(collection.provider_id), token=CARD)
    assert listed() == {}


def receive(account_id: Any, provider_id: str, amount: str) -> None:
    account = lock_account(account_id)
    received = Received(Money(Decimal(amount), "USD"), BILLED, provider_id=provider_id)
    record_payment(account, received, [], because=WRONG, now=BILLED)


def test_what_is_only_here_is_listed(stripe: LocalStripe) -> None:
    _, payment = paid(stripe)
    receive(payment.account_id, "pi_nobody", "5")
    row = {"payment": payment, "reason": "?", "proposed_at": BILLED, "try_at": BILLED}
    Refund.objects.create(**row, amount=1, status="pending", provider_id="re_nobody")
    Collection.objects.filter(parts__invoice__isnull=False).update(provider_id="in_nobody")
    look()
    assert listed() == {
        "pi_nobody": "payment_only_here",
        "re_nobody": "refund_only_here",
        "in_nobody": "invoice_only_here",
        # The invoice that was ours, as the provider knows it.
        **{one: kind for one, kind in listed().items() if kind == "invoice_only_there"},
    }
    look(LATER + HOUR)
    assert {"pi_nobody", "re_nobody", "in_nobody"} <= listed().keys()


def test_another_amount_is_listed(stripe: LocalStripe) -> None:
    invoice, collection = unpaid(stripe)
    stripe.pay(str(collection.provider_id), token=CARD)
    [charge] = stripe.charges()
    receive(invoice.account_id, charge["payment_intent"], "30")
    look()
    assert listed()[charge["payment_intent"]] == "payment_amount_differs"
    [difference] = Difference.objects.filter(kind="payment_amount_differs")
    assert (difference.ours, difference.theirs) == (
        "Payment of 30.00 USD",
        f"Payment {charge['payment_intent']} of 36.00 USD",
    )


def test_what_the_provider_refused_is_listed_until_it_is_collected_anew(
    stripe: LocalStripe,
) -> None:
    invoice = refused(stripe)
    collection = collection_of(invoice)
    for hours in range(2):
        look(LATER + hours * HOUR)
        assert listed() == {str(collection.provider_id): "totals_differ"}
    sdk(stripe).v1.customers.update(customer_id(invoice.account), {"balance": 0})
    assert collect_anew(collection.pk, now=LATER)
    collect(LATER)
    look(LATER + 2 * HOUR)
    assert listed() == {}
    assert status_of(invoice) == InvoiceStatus.PAID


def test_a_collection_that_a_dead_worker_left_is_gone_on_with(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    begin_due_collections(BILLED)
    collection = collection_of(invoice)
    take_step(collection.pk, now=BILLED)
    assert look(LATER).healed == 1
    assert status_of(invoice) == InvoiceStatus.PAID
    assert len(stripe.charges()) == 1
    assert listed() == {}


def test_an_attempt_that_stays_unknown_is_listed_until_it_is_known(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    stripe.fault("reset_before", "PostInvoicesInvoicePay", times=5)
    collect()
    collection = collection_of(invoice)
    assert collection.attempts.get().status == PaymentAttempt.Status.UNKNOWN
    look()
    [difference] = Difference.objects.all()
    assert (difference.subject, difference.kind) == (str(collection.pk), "invoice_state_differs")
    assert "attempt 1 is unknown" in difference.ours
    assert "Network error" in difference.theirs
    stripe.clear_faults()
    look(LATER + HOUR)
    assert status_of(invoice) == InvoiceStatus.PAID
    assert listed() == {}


def test_an_invoice_that_nobody_collects_is_collected(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    day = timedelta(days=1)
    assert look(BILLED + day, since=BILLED + day - HOUR).healed == 1
    collect(BILLED + day)
    assert status_of(invoice) == InvoiceStatus.PAID


def test_a_refund_that_stands_still_is_pushed_or_listed(stripe: LocalStripe) -> None:
    _, payment = paid(stripe)
    refund = propose(payment, "6")
    stripe.fault("429", "PostRefunds", times=1)
    at = refund.proposed_at + 2 * HOUR
    look(at, since=at - HOUR)
    assert listed() == {str(refund.pk): "refund_only_here"}
    look(at + HOUR, since=at)
    assert listed() == {}
    refund.refresh_from_db()
    assert refund.status == "succeeded"


def test_a_look_that_was_cut_off_goes_on_where_it_was(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid(stripe)
    row = begin_reconciliation(since=SINCE, now=LATER)
    assert take_look(row.pk, now=LATER)
    stripe.fault("reset_before", "GetRefunds", times=2)
    with pytest.raises(NoAnswerError):
        take_look(row.pk, now=LATER)
    row.refresh_from_db()
    assert "Network error" in row.error
    assert row.reached == SINCE + HOUR
    assert begin_reconciliation(since=SINCE, now=LATER + HOUR) == row
    # One that somebody has is left alone.
    Reconciliation.objects.update(claimed_until=LATER + timedelta(minutes=5))
    assert not take_look(row.pk, now=LATER)
    asked: list[datetime] = []
    fetch = reconciling._fetch_events

    def noting(since: datetime, until: datetime | None, *, now: datetime) -> int:
        asked.append(since)
        return fetch(since, until, now=now)

    monkeypatch.setattr(reconciling, "_fetch_events", noting)
    while take_look(row.pk, now=LATER + HOUR):
        pass
    assert asked == [SINCE + HOUR, SINCE + 2 * HOUR]
    row.refresh_from_db()
    assert (row.error, row.differences) == ("", 0)
    assert row.ended_at


def test_a_window_that_takes_too_long_is_halved_until_it_does_not(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid(stripe)
    compared: list[tuple[datetime, datetime | None]] = []
    compare = reconciling._compare_bills

    def slow(since: datetime, until: datetime | None, *, now: datetime) -> Compared:
        if (until or LATER) - since > timedelta(minutes=20):
            raise SoftTimeLimitExceeded
        compared.append((since, until))
        return compare(since, until, now=now)

    monkeypatch.setattr(reconciling, "_compare_bills", slow)
    row = begin_reconciliation(since=SINCE, now=LATER)
    now, cut_off = LATER, 0
    for _ in range(60):
        try:
            if not take_look(row.pk, now=now):
                break
        except SoftTimeLimitExceeded:
            # Nobody but the end of the lease lets go of it.
            assert not take_look(row.pk, now=now)
            cut_off += 1
            now += reconciling.LEASE
    row.refresh_from_db()
    assert row.ended_at
    assert cut_off > 2
    starts, ends = [since for since, _ in compared], [until for _, until in compared]
    assert starts == [SINCE, *ends[:-1]]
    assert ends[-1] is None
    assert listed() == {}


def test_a_month_is_compared_without_a_gap(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    del stripe
    windows: list[tuple[datetime, datetime | None]] = []

    def noting(since: datetime, until: datetime | None, *, now: datetime) -> int:
        del now
        windows.append((since, until))
        return 0

    monkeypatch.setattr(reconciling, "_fetch_events", noting)
    month = timedelta(days=30)
    look(LATER, since=LATER - month)
    assert windows[0][0] == LATER - month
    assert windows[-1][1] is None
    assert [since for since, _ in windows[1:]] == [until for _, until in windows[:-1]]
    assert len(windows) == 28 * 4 + 48


def test_one_that_cannot_be_compared_stops_only_itself(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice, collection = unpaid(stripe)
    stripe.pay(str(collection.provider_id), token=CARD)
    other = invoice_of(account_with_card(stripe, BAD, name="Bob"))
    collect()
    there = collection_of(other)

    def failing(bill: Any, *, now: datetime) -> bool:
        if bill.id == there.provider_id:
            raise KeyError("a field")
        return compare_bill(bill, now=now)

    monkeypatch.setattr(reconciling, "compare_bill", failing)
    look()
    assert status_of(invoice) == InvoiceStatus.PAID
    assert listed() == {str(there.provider_id): "invoice_state_differs"}
    assert Difference.objects.get().theirs == "KeyError: 'a field'"
