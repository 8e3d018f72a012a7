"""Cards that several workers are about to charge at the same moment."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db.models import Q

from payments.models import Collection, PaymentAttempt
from payments.services import collecting, providing
from payments.services.collecting import take_step
from payments.services.sweeps import due_steps
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED
from tests.races.test_caps import meet_before
from tests.races.test_payments import being_collected, charged
from tests.races.workers import run_at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

PAY = "PostInvoicesInvoicePay"
WORKERS = 4


def charge_what_is_due(_worker: int) -> None:
    # A connection to the provider that both sides of a fork used would be spoilt for both.
    providing._stripe.cache_clear()
    for collection_id in due_steps(BILLED):
        while take_step(collection_id, now=BILLED):
            pass


def asked_to_pay(stripe: LocalStripe) -> Counter[str]:
    """Return how often the provider was asked to charge for each of its invoices."""
    return Counter(call["path"] for call in stripe.log(PAY))


def test_a_card_that_four_workers_are_about_to_charge_is_charged_by_one(
    stripe: LocalStripe,
) -> None:
    invoices = being_collected(stripe)
    assert run_at_once(charge_what_is_due, workers=WORKERS) == [0] * WORKERS
    assert [charged(stripe, invoice) for invoice in invoices] == [1] * len(invoices)
    assert PaymentAttempt.objects.count() == len(invoices)
    assert set(asked_to_pay(stripe).values()) == {1}


def test_without_the_claim_two_ask_and_the_key_alone_keeps_it_at_one_charge(
    stripe: LocalStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = being_collected(stripe)[0]
    (collection_id,) = Collection.objects.filter(parts__invoice=invoice).values_list(
        "pk", flat=True
    )
    monkeypatch.setattr(collecting, "due_collections", lambda _now: Q())
    meet_before(monkeypatch, collecting, "pay")

    def charge(_worker: int) -> None:
        providing._stripe.cache_clear()
        take_step(collection_id, now=BILLED)

    run_at_once(charge, workers=2)
    assert max(asked_to_pay(stripe).values()) == 2
    assert charged(stripe, invoice) == 1
