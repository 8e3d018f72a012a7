"""The endpoint as Stripe meets it: gunicorn on a socket, raw HTTP, the local Stripe's own posts."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from billing.lifecycle import InvoiceStatus
from payments.models import WebhookEvent
from payments.signatures import sign
from payments.tasks import sweep_events
from tests.local_stripe import API_KEY, LocalStripe
from tests.payments.month import account_with_card, collect, collection_of, invoice_of
from tests.payments.signed_events import OTHER_SECRET, PATH, SECRET, body_of, event
from tests.processes import running, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
HOST = "127.0.0.1"
TIMEOUT_S = 20
WRONG_SECRET = "whsec_wrong"  # noqa: S105 - nobody's


class Web:
    """A gunicorn with one worker."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, *pieces: bytes) -> tuple[int, str]:
        """Send raw bytes; return the answer's status and body."""
        with socket.create_connection((HOST, self.port), TIMEOUT_S) as connection:
            for piece in pieces:
                connection.sendall(piece)
            answer = b""
            while more := connection.recv(65536):
                answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode().strip()

    def post(self, body: bytes, **headers: str) -> tuple[int, str]:
        """Post a body, signed now, with these headers more or instead; `_` stands for `-`."""
        given = {
            "Host": "localhost",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "Stripe-Signature": sign(body, secret=SECRET, now=datetime.now(UTC)),
            "Connection": "close",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {given[name]}" for name in given)]
        return self.send("\r\n".join([*lines, "", ""]).encode(), body)


@pytest.fixture(scope="module")
def web(
    service_environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Web]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    server = Web(port)
    arguments = ("-m", "gunicorn", "soulbox.wsgi", "--workers=1", "--threads=4")
    env = {
        **service_environment,
        "STRIPE_API_KEY": API_KEY,
        "STRIPE_WEBHOOK_SECRET": f"{SECRET},{OTHER_SECRET}",
    }
    with ExitStack() as stack:
        stack.enter_context(
            running(
                *arguments,
                f"--bind={HOST}:{port}",
                "--no-control-socket",
                env=env,
                log=tmp_path_factory.mktemp("web") / "web.log",
            )
        )
        wait_until(lambda: answers(server), seconds=60, what="gunicorn")
        yield server


def answers(web: Web) -> bool:
    try:
        return web.post(b"")[0] == 400
    except OSError:
        return False


def test_what_stripe_sends_is_taken_and_nothing_else(web: Web) -> None:
    body = body_of(event("evt_good"))
    old = datetime.now(UTC) - timedelta(seconds=310)
    early = datetime.now(UTC) + timedelta(seconds=70)
    refused = {
        "a changed byte": web.post(body, Stripe_Signature=signed(body + b" ")),
        "another secret": web.post(body, Stripe_Signature=signed(body, secret=WRONG_SECRET)),
        "too old": web.post(body, Stripe_Signature=signed(body, at=old)),
        "too early": web.post(body, Stripe_Signature=signed(body, at=early)),
        "empty": web.post(b""),
        "no event": web.post(b"[]"),
        "no header": web.post(body, Stripe_Signature=""),
    }
    assert {why: status for why, (status, _) in refused.items()} == dict.fromkeys(refused, 400)
    assert not WebhookEvent.objects.exists()
    for kind in ("application/json", "text/plain", "multipart/form-data", "image/png"):
        assert web.post(body, Content_Type=kind) == (200, "Stored.")
    assert web.post(body, Stripe_Signature=signed(body, secret=OTHER_SECRET)) == (200, "Stored.")
    assert WebhookEvent.objects.get().body == json.loads(body)


def signed(body: bytes, *, secret: str = SECRET, at: datetime | None = None) -> str:
    return sign(body, secret=secret, now=at or datetime.now(UTC))


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(web: Web) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    # Not one byte of the body follows: the answer comes all the same.
    status, words = web.send(f"{head}Content-Length: {2**20}\r\n\r\n".encode())
    assert (status, words) == (413, "The body is longer than 524288 bytes.")
    assert not WebhookEvent.objects.exists()


def test_a_body_in_chunks_is_not_read(web: Web) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode()
    assert web.send(chunked) == (400, "The body is empty.")
    assert not WebhookEvent.objects.exists()


def test_an_invoice_paid_on_the_providers_page_is_paid_by_webhook(
    web: Web, stripe: LocalStripe
) -> None:
    invoice = invoice_of(account_with_card(stripe, "pm_card_chargeCustomerFail"))
    stripe.webhooks(f"http://{HOST}:{web.port}{PATH}", secret=SECRET, copies=3, order="shuffled")
    collect()
    bill_id = str(collection_of(invoice).provider_id)
    stripe.pay(bill_id, token="pm_card_visa")  # noqa: S106 - a test card
    stripe.settle()
    deliveries = stripe.deliveries()
    assert {delivery["status"] for delivery in deliveries} == {200}
    stored = set(WebhookEvent.objects.values_list("event_id", flat=True))
    assert stored == {delivery["event"] for delivery in deliveries}
    assert "invoice.paid" in {delivery["type"] for delivery in deliveries}
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.PAYMENT_FAILED
    sweep_events()
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.PAID
    assert not WebhookEvent.objects.filter(status__in=["received", "failed"]).exists()
    assert len(stripe.charges()) == 1
