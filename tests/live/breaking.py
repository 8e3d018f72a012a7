"""What is broken of the running stack, each thing in the way that it breaks, and mended again."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen
from uuid import UUID, uuid4

import psycopg
import redis
from celery import chain
from django.conf import settings
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models import F
from stripe import StripeClient

from billing import services, tasks
from billing.models import Account, DeskSlice, Invoice
from metering.models import Life, StreamCursor
from metering.partitions import Month as Partition
from metering.partitions import drop_month, make_partitions, month_number
from metering.stream import waiting_since
from payments.models import Customer, PaymentAttempt, WebhookEvent
from payments.services.events import MOST_TRIES
from soulbox.celery import app
from tests.live.customers import DECLINED, VISA, pays_with, used_last_month
from tests.live.stack import Stack
from tests.live.watching import Watch
from tests.local_stripe import API_KEY, LocalStripe
from tests.lookalike import Load, LookAlike
from tests.processes import wait_until

PATIENCE_S = 120
SECONDS_A_LOOK = 20
LOOKS = 20
UNBILLABLE = 8
"""More than five: they fail together."""
PAYING = 12
"""With those that are billed late, so many that one in twenty of all payments fails, or fewer."""
BUSY = 100
"""Sandboxes, next to which the time that few were not measured is nothing."""
QUEUED = 1100
JUMP = 50
"""So many times as much as before is a spike."""
LOAD = Load(
    cpu_ns_per_ms=250_000,
    memory_bytes=64 * 2**20,
    disk_write_bytes_per_ms=10,
    network_bytes_per_ms={"eth0": (100, 200)},
)
HELD = ("aggregate", "billing", "payments")
"""Whose workers stand still. That of `default` sends what the collectors do."""


def hurry(*tasks: str, queue: str) -> None:
    """Have tasks done now that beat sends rarely, one after the other."""
    chain(*(app.signature(task, queue=queue, immutable=True) for task in tasks)).apply_async()


def wait(condition: Callable[[], object], what: str) -> None:
    """Return when it holds."""
    wait_until(lambda: bool(condition()), seconds=PATIENCE_S, what=what)


def owner_executes(*statements: str) -> None:
    """Change rows past every right and trigger, as only their tables' owner may."""
    parameters: dict[str, Any] = connections["owner"].get_connection_params()
    with psycopg.connect(**parameters) as connection:
        for statement in statements:
            connection.execute(statement.encode())


class Prepared:
    """What is there before anything runs: customers, sandboxes, and what will fail of itself."""

    def __init__(
        self, stripe: LocalStripe, engines: tuple[LookAlike, LookAlike], hosts: tuple[UUID, UUID]
    ) -> None:
        self.engines, self.hosts = engines, hosts
        now = datetime.now(UTC)
        self.tenant = services.open_account(name="Tenant", now=now)
        # It runs before anybody measures it.
        self.early = engines[0].add("early", self.tenant.pk, LOAD)
        for name, token in (("Good", VISA), ("Bad", DECLINED)):
            pays_with(used_last_month(name), token, stripe)
        drop_month(Partition.of(month_number(now)))


class Breakage:
    """The breaking, step by step, and the mending."""

    def __init__(self, stack: Stack, prepared: Prepared) -> None:
        self.stack, self.prepared = stack, prepared
        self.sdk = StripeClient(API_KEY, base_addresses={"api": stack.stripe.url}).v1
        self.unbillable: list[UUID] = []
        self.sold: list[str] = []
        self.invoice_id = 0
        self.load = LOAD

    def while_all_run(self) -> None:
        """Let go wrong what the service itself has to find."""
        # There are no prices in euros.
        for number in range(UNBILLABLE):
            account = used_last_month(f"Euro {number}", currency="EUR")
            pays_with(account, VISA, self.stack.stripe)
            self.unbillable.append(account.pk)
        wait(lambda: Invoice.objects.filter(number__isnull=False), "an invoice")
        self._falsify_an_invoice()
        self._sell_something_at_stripe()
        self._give_an_event_up()
        self._lose_batches()
        ended = PaymentAttempt.objects.filter(status__in=("succeeded", "failed"))
        wait(lambda: ended.count() >= 2, "a payment, and one that failed")
        wait(lambda: WebhookEvent.objects.filter(status="failed"), "an event that is given up")
        self.stack.stripe.clear_faults()
        self.stack.stripe.fault("reset_before", "PostInvoicesInvoicePay", times=10_000)
        pays_with(used_last_month("Unanswered"), VISA, self.stack.stripe)
        # What ran last month is on no day's sums, and nobody reads it any more.
        hurry("soulbox.tasks.take_figures", queue="default")

    def and_hold(self) -> None:
        """Let processes stand still, or end, with work to do."""
        key = io.StringIO()
        call_command(
            "issue_metering_key", "sender", "--host", "sender", "--scope", "samples", stdout=key
        )
        self.stack.processes["second-collector"].stop()
        for worker in self.stack.workers_of(*HELD):
            worker.hold()
        pays_with(used_last_month("Late"), VISA, self.stack.stripe)
        self._sell_something_at_stripe(look=False)
        wait(lambda: WebhookEvent.objects.filter(status="received"), "an event")
        self._send_a_sample(key.getvalue())
        for _ in range(QUEUED):
            app.send_task("soulbox.tasks.sing", ("billing",), queue="billing")

    @contextmanager
    def without_a_right(self) -> Iterator[None]:
        """Let the service not read one of its tables meanwhile."""
        owner_executes("REVOKE SELECT ON soulbox_keptfigures FROM soulbox_app")
        try:
            yield
        finally:
            owner_executes("GRANT SELECT ON soulbox_keptfigures TO soulbox_app")

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """Let Redis stand still meanwhile. Here one is broker, streams and cache."""
        with redis.Redis.from_url(settings.REDIS_URL) as server:
            pid = server.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def mend(self) -> None:
        """Put everything right, as the runbook says."""
        self.stack.stripe.clear_faults()
        for invoice in self.sold:
            self.sdk.invoices.void_invoice(invoice)
        self._set_line("amount - 1")
        Account.objects.filter(pk__in=self.unbillable).update(currency="USD")
        for account_id in self.unbillable:
            services.unpark_account(account_id)
        for number in range(PAYING):
            pays_with(used_last_month(f"Payer {number}"), VISA, self.stack.stripe)
        newcomer = uuid4()
        for number in range(BUSY):
            self.prepared.engines[0].add(f"busy-{number}", newcomer, LOAD)
        # What ran before its account was there is measured from the first look on.
        services.open_account(name="Newcomer", account_id=newcomer, now=datetime.now(UTC))
        for worker in self.stack.workers_of(*HELD):
            worker.release()
        self.stack.processes["second-collector"].start()
        call_command("replay_webhooks", "--failed")
        make_partitions(now=datetime.now(UTC))
        # What ran on machines that are no more.
        gone = Life.objects.filter(host__is_active=False, ended_at=None)
        gone.update(ended_at=F("started_at") + timedelta(hours=1))

    def until_found(self, watch: Watch, alerts: Collection[str]) -> None:
        """Use ever more until all of the alerts were seen."""
        self._each_while(self._use_more, watch.until_seen, alerts)

    def until_found_right(self, watch: Watch, alerts: Collection[str]) -> None:
        """Look at anew what is looked at rarely, until none of the alerts is there."""
        self._each_while(self._look_again, watch.until_gone, alerts)

    def _each_while(
        self,
        look: Callable[[], None],
        until: Callable[[Collection[str], float], None],
        alerts: Collection[str],
    ) -> None:
        for _ in range(LOOKS):
            look()
            with suppress(TimeoutError):
                return until(alerts, SECONDS_A_LOOK)
        return until(alerts, SECONDS_A_LOOK)

    def _look_again(self) -> None:
        cache.delete(tasks._CHECKED_UP_TO)
        hurry("billing.tasks.check_conservation", queue="billing")
        hurry("billing.tasks.note_unpriced_usage", queue="billing")
        hurry("soulbox.tasks.take_figures", queue="default")
        self._add_up()
        self._reconcile()

    def _use_more(self) -> None:
        """Have looked at what is looked at rarely, and lose what was not lost the last time."""
        if not StreamCursor.objects.filter(lost_batch_count__gt=0):
            self._lose_batches()
        hurry("billing.tasks.note_unpriced_usage", queue="billing")
        hurry("soulbox.tasks.take_figures", queue="default")
        self.load = replace(self.load, cpu_ns_per_ms=self.load.cpu_ns_per_ms * JUMP)
        self.prepared.engines[0].change_load(self.prepared.early, self.load)
        self._add_up()

    def _send_a_sample(self, printed: str) -> None:
        """Send what the runtime of a host measured that we do not read ourselves."""
        key = re.search(r"sbx_meter_\S+", printed)
        assert key, printed
        now = datetime.now(UTC)
        sample = {
            "account_id": str(self.prepared.tenant.pk),
            "sandbox_id": "sent",
            "life": "pod/0",
            "started_at": (now - timedelta(seconds=5)).isoformat(),
            "read_at": now.isoformat(),
            "cpu_ns": 0,
            # It is the only one: a sandbox that runs on would be one that nobody reads.
            "state": "stopped",
            "event": "stopped",
        }
        request = Request(
            f"http://{self.stack.web}/api/v1/metering/samples",
            json.dumps({"samples": [sample]}).encode(),
            {"Authorization": f"Bearer {key[0]}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            said = json.load(answer)
        assert said["accepted"] == 1, said

    def _add_up(self) -> None:
        """Have today's coverage made of what is folded by now."""
        DeskSlice.objects.update(computed_at=None)
        hurry(
            "metering.tasks.summarise_touched_days",
            "billing.tasks.add_up_desk",
            queue="default",
        )

    def _falsify_an_invoice(self) -> None:
        self.invoice_id = Invoice.objects.filter(number__isnull=False).latest("pk").pk
        self._set_line("amount + 1")
        cache.delete(tasks._CHECKED_UP_TO)
        hurry("billing.tasks.check_conservation", queue="billing")

    def _set_line(self, amount: str) -> None:
        table = "billing_invoiceline"
        owner_executes(
            f"ALTER TABLE {table} DISABLE TRIGGER USER",
            f"UPDATE {table} SET amount = {amount} WHERE invoice_id = {self.invoice_id}",  # noqa: S608 - our own
            f"ALTER TABLE {table} ENABLE TRIGGER USER",
        )

    def _sell_something_at_stripe(self, *, look: bool = True) -> None:
        """Make an invoice there that nobody here knows of."""
        made = self.sdk.invoices.create({"customer": self._customer(), "currency": "usd"})
        line = {"amount": 700, "description": "A T-shirt"}
        self.sdk.invoices.add_lines(str(made.id), {"lines": [line]})  # type: ignore[list-item]  # the SDK's own type asks for all of them
        self.sdk.invoices.finalize_invoice(str(made.id))
        self.sold.append(str(made.id))
        if look:
            self._reconcile()

    def _customer(self) -> str:
        return str(Customer.objects.exclude(provider_id=None).earliest("pk").provider_id)

    def _reconcile(self) -> None:
        # It ends with an error where something differs.
        with suppress(CommandError):
            call_command("reconcile_stripe", "--days", "1")

    def _give_an_event_up(self) -> None:
        """Let an event fail for two days, of which the last try is real."""
        self.stack.stripe.fault("500_before", "GetCustomersCustomerPaymentMethods", times=10_000)
        self.sdk.customers.update(self._customer(), {"metadata": {"seen": "yes"}})
        tried = WebhookEvent.objects.filter(status="received", tries__gt=0, claimed_until=None)
        wait(tried.exists, "an event that fails")
        tried.update(tries=MOST_TRIES - 1, try_at=datetime.now(UTC))

    def _lose_batches(self) -> None:
        """Take batches out of a stream before they are folded."""
        host_id = self.prepared.hosts[0]
        cursor = StreamCursor.objects.get(host=host_id)

        def waiting() -> bool:
            cursor.refresh_from_db()
            return waiting_since(host_id, cursor.entry_id) is not None

        wait(waiting, "a batch that is not folded")
        with redis.Redis.from_url(settings.STREAM_REDIS_URL) as streams:
            streams.xtrim(f"metrics:stream:{host_id}", maxlen=0)
