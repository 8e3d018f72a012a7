"""A customer of a suspended account adds a card: from the webhook alone, no sweep helping."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from billing import services
from billing.lifecycle import InvoiceStatus
from payments.models import Customer
from payments.services.platform_requests import due_requests, send_request
from payments.services.providing import provider
from payments.signatures import sign
from tests.local_stripe import SECRET, LocalStripe
from tests.payments.arrears import Debtor, days, dun
from tests.payments.month import BILLED
from tests.payments.platform_here import Platform

pytestmark = pytest.mark.django_db

Standing = Customer.Standing


@pytest.fixture(autouse=True)
def _workers_take_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(task: Any, *arguments: str) -> bool:
        task(*arguments)
        return True

    monkeypatch.setattr("payments.tasks.hurry", run)
    monkeypatch.setattr("payments.views.webhooks.hurry", run)


def suspended(stripe: LocalStripe, platform: Platform) -> Debtor:
    debtor = Debtor(stripe)
    for day in (1, 3, 7, 14):
        dun(days(day))
    for request_id in due_requests(days(14)):
        send_request(request_id, now=days(14))
    assert (debtor.standing, platform.told) == (Standing.SUSPENDED, ["stop"])
    return debtor


def deliver(since: datetime) -> list[str]:
    """Bring the webhook what happened at the provider since then; return the kinds of events."""
    events = list(provider().events(since=since, only_undelivered=False))
    for event in reversed(events):
        body = json.dumps(event.body).encode()
        answer = Client().post(
            "/api/v1/webhook/stripe",
            body,
            content_type="application/json",
            headers={"Stripe-Signature": sign(body, secret=SECRET, now=datetime.now(UTC))},
        )
        assert answer.status_code == 200
    return [event.type for event in events]


def test_another_card_pays_and_resumes_within_the_webhooks_handling(
    stripe: LocalStripe,
    platform: Platform,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    debtor = suspended(stripe, platform)
    stripe.advance(60 * 60)
    before = datetime.fromtimestamp(stripe.now(), UTC)
    stripe.attach(debtor.customer_id, "pm_card_mastercard")
    with django_capture_on_commit_callbacks(execute=True):
        kinds = deliver(before)
    assert "payment_method.attached" in kinds
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert platform.told == ["stop", "resume"]
    assert len(stripe.charges()) == 1


def test_the_page_of_the_provider_pays_and_resumes_too(
    stripe: LocalStripe,
    platform: Platform,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    debtor = suspended(stripe, platform)
    dun(days(28))
    assert debtor.status == InvoiceStatus.UNCOLLECTIBLE
    stripe.advance(60 * 60)
    before = datetime.fromtimestamp(stripe.now(), UTC)
    stripe.pay(debtor.bill, token="pm_card_visa")  # noqa: S106 - a test card
    with django_capture_on_commit_callbacks(execute=True):
        deliver(before)
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert platform.told == ["stop", "resume"]


def test_another_default_card_chosen_through_the_api_is_charged_at_once(
    stripe: LocalStripe, platform: Platform
) -> None:
    debtor = suspended(stripe, platform)
    key = services.issue_api_key(debtor.account.pk, name="test", now=BILLED).key
    api = Client(headers={"Authorization": f"Bearer {key}"})
    begun = api.post("/api/v1/payment-methods", {}, content_type="application/json").json()
    stripe.attach(debtor.customer_id, "pm_card_visa", default=False)
    shown = api.post(
        "/api/v1/payment-methods",
        {"setup_intent": begun["setup_intent"]},
        content_type="application/json",
    ).json()
    assert debtor.status == InvoiceStatus.PAYMENT_FAILED
    (added,) = [method for method in shown if not method["is_default"]]
    assert api.post(f"/api/v1/payment-methods/{added['id']}/default").status_code == 200
    assert (debtor.status, debtor.standing) == (InvoiceStatus.PAID, Standing.ACTIVE)
    assert platform.told == ["stop", "resume"]
