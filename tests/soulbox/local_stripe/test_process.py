"""The server as a process: what it keeps, what it is started with, and how it ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from stripe import StripeClient

from tests.local_stripe import API_KEY, ROOT, SECRET, LocalStripe
from tests.soulbox.local_stripe.conftest import CACHE
from tests.soulbox.local_stripe.invoices import customer_with, final_invoice
from tests.soulbox.local_stripe.receiver import Receiver

MOST_START_S = 1.0


def client_of(server: LocalStripe) -> StripeClient:
    return StripeClient(API_KEY, base_addresses={"api": server.url}, max_network_retries=0)


def test_everything_is_kept_over_a_restart(tmp_path: Path) -> None:
    kept = ("--state", str(tmp_path / "made" / "stripe.json"))
    with LocalStripe(*kept, cache=CACHE) as server:
        client = client_of(server)
        customer = customer_with(client, server, "pm_card_visa")
        invoice = final_invoice(client, customer.id, 1000)
        client.v1.invoices.pay(invoice.id, {}, {"idempotency_key": "pay-1"})
        before = client.v1.events.list({"limit": 100}).to_dict()
    with LocalStripe(*kept, cache=CACHE) as server:
        client = client_of(server)
        assert client.v1.events.list({"limit": 100}).to_dict() == before
        assert client.v1.invoices.retrieve(invoice.id).status == "paid"
        client.v1.invoices.pay(invoice.id, {}, {"idempotency_key": "pay-1"})
        client.v1.invoices.pay(final_invoice(client, customer.id, 1000).id)
        assert len(server.charges()) == 2
        assert server.violations() == []


def test_it_tells_the_endpoint_it_was_started_with_and_repeats_after_a_restart(
    tmp_path: Path,
) -> None:
    with Receiver() as receiver:
        given = (
            *("--state", str(tmp_path / "stripe.json")),
            *("--webhook-url", receiver.url, "--webhook-secret", SECRET),
        )
        receiver.statuses += [500, 200]
        with LocalStripe(*given, cache=CACHE) as server:
            made = client_of(server).v1.customers.create({"name": "Ada"})
            server.settle()
        assert receiver.kinds == ["customer.created"]
        # It went down before its own repeat: what is owed is delivered by the next one.
        receiver.statuses.clear()
        with LocalStripe(*given, cache=CACHE) as server:
            deadline = time.monotonic() + 10
            while client_of(server).v1.events.list({"delivery_success": False}).data:
                assert time.monotonic() < deadline
        assert receiver.received[-1].event["data"]["object"]["id"] == made.id


def test_a_start_takes_a_second_of_work_at_most_and_a_signal_ends_it() -> None:
    with LocalStripe(cache=CACHE):
        pass
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "soulbox.local_stripe", "--announce-port-on-stdout"]
    with subprocess.Popen(
        [*command, "--cache", str(CACHE)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert worked_s < MOST_START_S


def test_an_address_without_a_secret_is_refused() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "soulbox.local_stripe", "--webhook-url", "http://127.0.0.1:9/"],
        cwd=ROOT,
        env={**os.environ, "STRIPE_WEBHOOK_SECRET": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert "wants a --webhook-secret" in refused.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with LocalStripe(cache=CACHE) as server:
        port = server.url.rpartition(":")[2]
        refused = subprocess.run(
            [sys.executable, "-m", "soulbox.local_stripe", "--port", port, "--cache", str(CACHE)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Cannot listen on port {port}")
