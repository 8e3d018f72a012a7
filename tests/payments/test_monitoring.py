from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django.fixtures import Settings

from payments import queries
from payments.models import Collection, Difference, PaymentAttempt
from soulbox import doctor
from soulbox.tasks import take_figures
from tests.billing.usage import open_account
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect, invoice_of

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def gauge(name: str, **labels: str) -> float:
    answer = Client().get("/metrics").content.decode()
    for family in text_string_to_metric_families(answer):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"There is no {name} of {labels}.")


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command("collect_invoices", *arguments, stdout=out)
    return out.getvalue()


def test_how_attempts_ended_is_counted_and_rated(stripe: LocalStripe) -> None:
    invoice_of(account_with_card(stripe))
    invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail", name="Eve"))
    collect()
    ended = queries.attempts_ended(BILLED + HOUR)
    assert ended == {"succeeded": 1, "failed": 1, "action_required": 0, "abandoned": 0}
    assert queries.success_rate(BILLED + HOUR) == Decimal("0.5")
    assert queries.success_rate(BILLED + timedelta(days=3)) is None
    PaymentAttempt.objects.update(ended_at=timezone.now())
    assert gauge("soulbox_payment_attempts_ended", status="failed") == 1
    assert gauge("soulbox_payment_attempts_failed", code="generic_decline") == 1
    assert gauge("soulbox_payment_attempts_failed", code="other") == 0
    take_figures()
    assert gauge("soulbox_payments_balance", currency="USD") == 36
    assert gauge("soulbox_collections", status="open") == 1
    assert gauge("soulbox_collections", status="refused") == 0
    assert gauge("soulbox_dunning_cases") == 1


def test_what_waits_is_told_with_its_age(stripe: LocalStripe) -> None:
    invoice_of(account_with_card(stripe))
    stripe.fault("reset_before", "PostInvoicesInvoicePay")
    collect()
    assert gauge("soulbox_payment_attempts_unknown") == 1
    assert queries.longest_due_s(BILLED + HOUR) == pytest.approx(3600, abs=60)
    assert queries.longest_due_s(BILLED - HOUR) == 0


def test_the_command_collects_and_says_what_became_of_it(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    said = printed()
    assert f"Ada: {invoice.number}, 36.00 USD: paid, attempt succeeded" in said
    assert printed() == "Nothing is due.\n"


def test_the_command_collects_one_invoice_alone(stripe: LocalStripe) -> None:
    invoice = invoice_of(account_with_card(stripe))
    other = invoice_of(account_with_card(stripe, name="Eve"))
    [row] = json.loads(printed("--invoice", str(invoice.number), "--json"))["collections"]
    assert (row["invoices"], row["status"]) == (invoice.number, "paid")
    assert not Collection.objects.filter(parts__invoice=other).exists()
    with pytest.raises(CommandError, match="there is no invoice 9"):
        printed("--invoice", "9")


def test_what_is_refused_ends_the_command_with_an_error(stripe: LocalStripe) -> None:
    invoice_of(account_with_card(stripe))
    stripe.fault("reset_before", "PostInvoices")
    printed()
    Collection.objects.update(amount=Decimal("35.99"), try_at=BILLED)
    Collection.objects.get().parts.update(amount=Decimal("36.00"))
    with pytest.raises(CommandError, match="1 were refused"):
        printed()
    assert Difference.objects.get().kind == Difference.Kind.TOTALS_DIFFER


def test_without_a_key_the_command_says_what_is_missing(settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    with pytest.raises(CommandError, match="STRIPE_API_KEY is not set"):
        printed()


@pytest.mark.usefixtures("stripe")
@pytest.mark.django_db(databases=["default", "owner"])
def test_the_doctor_looks_at_payments(settings: Settings) -> None:
    open_account()
    said = {found.text: found.is_good for found in doctor.examine(now=timezone.now())}
    assert said["Stripe answers, in test mode"]
    assert said["0 differences with Stripe are open"]
    assert "The last webhook came: never" in said
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    said = {found.text: found.is_good for found in doctor.examine(now=timezone.now())}
    assert [text for text, good in said.items() if text.startswith("Stripe (") and not good]
    settings.STRIPE_API_KEY = ""
    assert any("STRIPE_API_KEY" in found.text for found in doctor.examine(now=timezone.now()))
