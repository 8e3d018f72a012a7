from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from billing import services
from billing.models import Account
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe
from tests.payments.arrears import Debtor, days, dun
from tests.payments.month import BILLED

pytestmark = pytest.mark.django_db


def get(path: str, account: Account) -> Any:
    key = services.issue_api_key(account.pk, name="test", now=BILLED).key
    return Client().get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"})


def test_a_failed_payment_is_explained(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    answer = get(f"invoices/{debtor.invoice.pk}/payment", debtor.account)
    assert answer.json() == {
        "status": "payment_failed",
        "currency": "USD",
        "owed": "36.00",
        "paid": "0.00",
        "last_attempt": {
            "status": "failed",
            "at": "2026-06-01T00:15:00Z",
            "failure": "The bank declined the card.",
        },
        "next_try_at": "2026-06-02T00:15:00Z",
        "suspends_at": "2026-06-15T00:15:00Z",
        "payment_url": debtor.attempts[0].collection.hosted_url,
    }


def test_a_payment_to_be_confirmed_leads_to_the_providers_page(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe, "pm_card_authenticationRequired")
    body = get(f"invoices/{debtor.invoice.pk}/payment", debtor.account).json()
    assert body["last_attempt"]["status"] == "action_required"
    assert body["last_attempt"]["failure"] == "Your bank wants you to confirm the payment."
    assert body["payment_url"]


def test_a_paid_invoice_leads_nowhere(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe, "pm_card_visa")
    body = get(f"invoices/{debtor.invoice.pk}/payment", debtor.account).json()
    assert (body["status"], body["owed"], body["paid"]) == ("paid", "0.00", "36.00")
    assert (body["payment_url"], body["next_try_at"]) == (None, None)
    assert body["last_attempt"]["failure"] is None


def test_another_accounts_invoice_is_not_found(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    assert get(f"invoices/{debtor.invoice.pk}/payment", open_account("Eve")).status_code == 404
    assert Client().get(f"/api/v1/invoices/{debtor.invoice.pk}/payment").status_code == 401


def test_an_account_sees_how_it_stands(stripe: LocalStripe) -> None:
    fresh = get("standing", open_account("New")).json()
    assert fresh == {"standing": "active", "since": None, "currency": "USD", "owed": "0.00"}
    debtor = Debtor(stripe)
    body = get("standing", debtor.account).json()
    assert (body["standing"], body["owed"]) == ("past_due", "36.00")
    assert body["since"] == "2026-06-01T00:15:00Z"
    for day in (1, 3, 7, 14):
        dun(days(day))
    assert get("standing", debtor.account).json()["standing"] == "suspended"
