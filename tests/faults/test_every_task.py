"""Every Celery task run twice, one after the other and at once: the second run changes no row.

A broker hands a message out again whenever a worker was lost, so each task has to bear it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from django.db import connection, connections
from django.test import Client

from billing.models import Account, Budget
from metering.models import Host
from payments.models import Collection, PlatformRequest, WebhookEvent
from payments.services import providing
from payments.services.customers import ensure_customer
from payments.services.providing import provider
from soulbox.celery import QUEUES, app
from tests.faults.billing_month import Customer, find_faults, open_customers
from tests.local_stripe import SECRET, LocalStripe
from tests.payments.conftest import _local_stripe_process, local_stripe, stripe
from tests.payments.signed_events import post
from tests.portal.members import add_member
from tests.races.workers import run_at_once

__all__ = ["_local_stripe_process", "local_stripe", "stripe"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "owner"]),
    pytest.mark.timeout(600),
]

CARD, DECLINED = "pm_card_visa", "pm_card_chargeCustomerFail"
WORKERS = 3
SITE = "http://localhost"
# What says only when somebody last looked, how often, or until when; and what a monitor is told.
NOTES = ("told_at", "tried_at", "sang_at", "taken_at", "rows", "looked_at", "earlier_at")
# Which have work to do here; the others have their own tests of being repeated.
AT_WORK = {
    "billing.tasks.sweep_billing",
    "billing.tasks.sweep_mail",
    "payments.tasks.sweep_collections",
    "payments.tasks.collect",
    "payments.tasks.apply_event",
    "metering.tasks.summarise_touched_days",
}
# Each time that it is asked for, by a person.
ASKED_FOR = {"portal.tasks.mail_password_reset", "portal.tasks.mail_sign_up"}


def state() -> dict[str, str]:
    """Return a digest of each table, but for notes."""
    # By the owner, who alone migrates: of the other role no table is Django's.
    tables = connections["owner"].introspection.django_table_names(include_views=False)
    digests = {}
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(
                f"SELECT md5(string_agg(kept, '|' ORDER BY kept)) FROM"  # noqa: S608 - our own tables
                f" (SELECT (to_jsonb(one) - %s::text[])::text AS kept FROM {table} one) AS every",
                [list(NOTES)],
            )
            digests[table] = str(cursor.fetchone()[0])
    return digests


def changed(before: dict[str, str]) -> list[str]:
    now = state()
    return [table for table in now if now[table] != before[table]]


@pytest.fixture
def customers(stripe: LocalStripe) -> list[Customer]:
    """Customers whose month is over: with usage, credit, budgets, cards that work and do not."""
    now = datetime.now(UTC)
    opened = open_customers(6, random=Random(7), now=now)  # noqa: S311 - the same each time
    for number, customer in enumerate(opened):
        provider_id = ensure_customer(customer.account_id, now=now)
        stripe.attach(provider_id, DECLINED if number % 3 == 0 else CARD)
        Budget.objects.create(account_id=customer.account_id, name="Month", amount=1)
    add_member(Account.objects.get(pk=opened[0].account_id), "ada")
    return opened


def tasks() -> list[str]:
    """Return every task of ours, twice over: what one leaves is another's work."""
    app.loader.import_default_modules()
    # Other tests have tasks of their own.
    ours = sorted(name for name in app.tasks if not name.startswith(("celery.", "tests.")))
    return [*ours, *ours]


def run(name: str) -> None:
    """Call a task for all that there is for it at this moment."""
    # A connection to the provider that both sides of a fork used would be spoilt for both.
    providing._stripe.cache_clear()
    for given in arguments(name):
        app.tasks[name].run(*given)


def arguments(name: str) -> list[tuple[str, ...]]:
    code = app.tasks[name].run.__code__
    names = code.co_varnames[: code.co_argcount]
    if not names:
        return [()]
    if name in ASKED_FOR:
        return [("ada@example.com", SITE)]
    return [(str(value),) for value in VALUES[names[0]]()]


VALUES: dict[str, Callable[[], Iterable[object]]] = {
    "host_id": lambda: Host.objects.values_list("pk", flat=True),
    "collection_id": lambda: Collection.objects.values_list("pk", flat=True),
    "account_id": lambda: Account.objects.values_list("pk", flat=True),
    "request_id": lambda: PlatformRequest.objects.values_list("pk", flat=True),
    "event_id": lambda: WebhookEvent.objects.values_list("event_id", flat=True),
    "queue": lambda: QUEUES,
}


def hear_all() -> None:
    """Store all that happened at the provider, as its webhooks tell it; nothing is applied yet."""
    now = datetime.now(UTC)
    for event in provider().events(since=now - timedelta(days=1), only_undelivered=False):
        answer = post(Client(), json.dumps(event.body).encode(), secret=SECRET, at=now)
        assert answer.status_code == 200


def test_each_task_that_is_run_twice_is_done_once(customers: list[Customer]) -> None:
    worked = set()
    for number, name in enumerate(tasks()):
        if number == len(tasks()) // 2:
            hear_all()
        begun = state()
        run(name)
        done = state()
        worked |= {name} if done != begun else set()
        run(name)
        assert (name, changed(done)) == (name, [])
    assert find_faults(customers) == []
    # The control: there was something to do.
    assert worked >= AT_WORK


def test_each_task_that_three_workers_run_at_once_is_done_once(customers: list[Customer]) -> None:
    for number, name in enumerate(tasks()):
        if number == len(tasks()) // 2:
            hear_all()
        statuses = run_at_once(lambda _: run(name), workers=WORKERS)  # noqa: B023 - called at once
        assert (name, statuses) == (name, [0] * WORKERS)
        # What one of them left to another that held it.
        run(name)
        done = state()
        run(name)
        assert (name, changed(done)) == (name, [])
    assert find_faults(customers) == []
