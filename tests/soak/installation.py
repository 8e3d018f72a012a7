"""What is there to load: a host full of sandboxes, and subscriptions whose month is to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, transaction

from bench.aggregating.processes import Worker
from bench.invoicing.month import make_accounts
from billing.models import Account
from billing.services import issue_api_key, open_account
from metering.models import Host
from metering.partitions import make_partitions
from metering.period import Period
from metering.services import register_host
from payments.services.customers import ensure_customer
from tests.live.customers import VISA, last_month, pays_with
from tests.local_stripe import LocalStripe
from tests.soak.plan import FLEET_ACCOUNTS, Plan

HOST_NAME = "soak"
WORKERS = 2
ASKERS = 20
NOT_YET = "Its month has not ended."
_PREPAID = """
    WITH granted AS (
        INSERT INTO billing_creditgrant (account_id, kind, effective_at, priority, reference,
            reason, granted_at)
        SELECT id, 'prepaid', %(now)s, 0, 'paid ahead', 'Paid ahead', %(now)s
        FROM billing_account WHERE id = ANY(%(accounts)s)
        RETURNING id
    )
    INSERT INTO billing_creditentry (grant_id, kind, amount, reference, reason, recorded_at)
    SELECT id, 'grant', 1000, '', '', %(now)s FROM granted
"""


@dataclass(frozen=True, slots=True)
class Installation:
    """Whose sandboxes are read, whose month ends, who asks, and whom Stripe tells of."""

    host_id: UUID
    fleet: Sequence[UUID]
    month: Period
    subscribers: Sequence[UUID]
    api_keys: Sequence[str]
    customer_ids: Sequence[str]


def prepare(plan: Plan) -> Installation:
    """Fill empty tables. Nothing is due before `end_month`."""
    now = datetime.now(UTC)
    month = last_month(now)
    make_partitions(now=now, since=month.start)
    subscribers = _subscribers(plan.subscriptions, month)
    _park(subscribers, now)
    _give_cards(subscribers[: plan.cards])
    with transaction.atomic(), connection.cursor() as cursor:
        paid_ahead = list(subscribers[plan.cards :])
        cursor.execute(_PREPAID, {"now": month.start, "accounts": paid_ahead})
    fleet = [
        open_account(name=f"Fleet {number}", now=now, currency="USD").pk
        for number in range(FLEET_ACCOUNTS)
    ]
    host_id = uuid4()
    named = "&".join(f"account={account}" for account in fleet)
    register_host(
        host_id=host_id,
        name=HOST_NAME,
        endpoint=f"simulator:?{named}&sandboxes={plan.sandboxes // FLEET_ACCOUNTS}",
        now=now,
    )
    askers = [*fleet, *subscribers[:ASKERS]]
    return Installation(
        host_id,
        fleet,
        month,
        subscribers,
        [issue_api_key(account, name="Soak", now=now).key for account in askers],
        [ensure_customer(account, now=now) for account in fleet],
    )


def end_month() -> None:
    """Let all subscriptions become due at this moment."""
    Account.objects.filter(parked_reason=NOT_YET).update(parked_reason="", parked_at=None)


def _subscribers(count: int, month: Period) -> list[UUID]:
    """Add accounts on a plan that used something last month, on a machine that is no more."""
    make_accounts(count, batch="soak", month=month, fee_paying_16ths=16)
    Host.objects.update(is_active=False)
    return list(Account.objects.order_by("pk").values_list("pk", flat=True))


def _park(accounts: Sequence[UUID], now: datetime) -> None:
    Account.objects.filter(pk__in=accounts).update(parked_reason=NOT_YET, parked_at=now)


def _give_cards(accounts: Sequence[UUID]) -> None:
    workers = [Worker() for _ in range(WORKERS)]
    for number, worker in enumerate(workers):
        worker.start(give_cards, accounts[number::WORKERS])
    for worker in workers:
        with worker:
            worker.result()


def give_cards(accounts: Sequence[UUID]) -> None:
    """Make these accounts customers with a test card, which pays."""
    stripe = LocalStripe()
    stripe.url = settings.STRIPE_API_BASE
    for account in Account.objects.filter(pk__in=accounts):
        pays_with(account, VISA, stripe)
