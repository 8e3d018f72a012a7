"""`make demo`, to the end: the month's invoices are collected from a local Stripe, by real HTTP.

One customer's card works, one's is declined until there is another, and one has to confirm the
payment on Stripe's page. What turns an invoice paid is Stripe's webhook.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connections

from billing.models import Invoice
from billing.services import Because, invoice_pdf, retry_payment
from payments.models import Collection, Payment
from payments.services.collecting import take_step
from payments.services.customers import ensure_customer
from payments.services.events import apply_event, due_events
from payments.services.sweeps import begin_due_collections, due_steps
from soulbox.demo import Figure, Statement
from soulbox.stripe_here import WEBHOOK_PATH

ADDRESS = "127.0.0.1"
ANSWER_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
WORKS, DECLINED, ASKS_CUSTOMER = (
    "pm_card_visa",
    "pm_card_chargeCustomerFail",
    "pm_card_authenticationRequired",
)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LocalStripe:
    """The far side of the payments: its address, and what happens there without us."""

    url: str

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Ask the control interface."""
        request = Request(  # noqa: S310 - our own address
            f"{self.url}/_local/{path}", data=json.dumps(given).encode(), method=method
        )
        with urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - our own address
            return json.loads(answer.read())


def collect_month(statements: Sequence[Statement], *, say: Say) -> list[Figure]:
    """Collect what the statements' invoices ask for; return what came and what had to."""
    with _payday() as stripe:
        works, declined, asks = (statement.invoice for statement in statements)
        cards = ((works, WORKS), (declined, DECLINED), (asks, ASKS_CUSTOMER))
        for invoice, card in cards:
            _add_card(stripe, invoice, card)
        say("\nCollecting through a local Stripe …")
        _collect()
        for invoice, _ in cards:
            say(_stands(invoice))
        say(f"{declined.account} adds another card, {asks.account} confirms on Stripe's page …")
        _add_card(stripe, declined, WORKS)
        retry_payment(declined.pk, because=Because("Another card"), now=datetime.now(UTC))
        _collect()
        asked = Collection.objects.get(parts__invoice=asks)
        stripe.ask("POST", f"invoices/{asked.provider_id}/authenticate")
        figures = []
        for invoice, _ in cards:
            say(_stands(invoice))
            say(f"  {_keep_pdf(invoice)}")
            figures += _figures(invoice, stripe)
        return figures


def _add_card(stripe: LocalStripe, invoice: Invoice, card: str) -> None:
    customer = ensure_customer(invoice.account_id, now=datetime.now(UTC))
    stripe.ask("POST", f"customers/{customer}/attach", token=card)


def _collect() -> None:
    begin_due_collections(datetime.now(UTC))
    while due := due_steps(datetime.now(UTC)):
        for collection_id in due:
            take_step(collection_id, now=datetime.now(UTC))


def _stands(invoice: Invoice) -> str:
    invoice.refresh_from_db(fields=["status", "paid_at"])
    last = invoice.transitions.latest("pk")
    return f"  {invoice.account}: {invoice.number} is {invoice.status} ({last.reason})"


def _keep_pdf(invoice: Invoice) -> Path:
    file = invoice_pdf(invoice.pk, now=datetime.now(UTC))
    path = Path(settings.HOME, file.name)
    path.write_bytes(file.content)
    return path


def _figures(invoice: Invoice, stripe: LocalStripe) -> list[Figure]:
    """Return what was charged at Stripe, recorded here and said of the invoice, once each."""
    bills = set(Collection.objects.filter(parts__invoice=invoice).values_list("provider_id"))
    charged = [
        Decimal(charge["amount"]) / 100
        for charge in stripe.ask("GET", "charges")
        if charge["status"] == "succeeded" and (charge["invoice"],) in bills
    ]
    recorded = Payment.objects.filter(allocations__invoice=invoice)
    by_webhook = invoice.transitions.filter(
        to_status=Invoice.Status.PAID, reason__startswith="Webhook"
    )
    return [
        Figure("charges of the invoice", len(charged), 1),
        Figure("charged", sum(charged, Decimal(0)), invoice.amount_due),
        Figure("recorded", sum((payment.amount for payment in recorded), Decimal(0)), sum(charged)),
        Figure("turned paid by a webhook", by_webhook.count(), 1),
    ]


@contextmanager
def _payday() -> Iterator[LocalStripe]:
    """Run a local Stripe, and the web server that it tells what happened."""
    secret = f"whsec_{secrets.token_hex(16)}"
    with _webhook_server() as address, _stripe_process(address, secret) as stripe:
        kept = {
            name: getattr(settings, name)
            for name in ("STRIPE_API_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRETS")
        }
        settings.STRIPE_API_KEY = f"sk_test_{secrets.token_hex(8)}"
        settings.STRIPE_API_BASE = stripe.url
        settings.STRIPE_WEBHOOK_SECRETS = [secret]
        # Told before the call is answered, as it may be: then the webhook is the first to say so.
        stripe.ask("PUT", "webhooks", when="before")
        try:
            yield stripe
        finally:
            for name, value in kept.items():
                setattr(settings, name, value)


@contextmanager
def _stripe_process(webhook_address: str, secret: str) -> Iterator[LocalStripe]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [
            sys.executable,
            *("-m", "soulbox.local_stripe", "--announce-port-on-stdout"),
            *("--webhook-url", webhook_address, "--cache", str(settings.HOME / "cache")),
        ],
        cwd=settings.BASE_DIR,
        env={**os.environ, "STRIPE_WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None:
        raise RuntimeError("The local Stripe has no output to read its address from.")
    try:
        yield LocalStripe(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()


@contextmanager
def _webhook_server() -> Iterator[str]:
    """Serve the application on a thread, and apply what it is told at once; give the address."""
    application = get_wsgi_application()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer = application(environ, start_response)
        body = list(answer)
        answer.close()
        for event_id in due_events(datetime.now(UTC)):
            apply_event(event_id, now=datetime.now(UTC))
        connections.close_all()
        return body

    with make_server(ADDRESS, 0, app, WSGIServer, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{ADDRESS}:{server.server_port}{WEBHOOK_PATH}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing about requests that went well."""
