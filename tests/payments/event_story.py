"""What happens at the provider and is told by webhooks alone: a story of two customers, by seed.

Our side does something only before it begins. From then on customers pay, dispute and change their
cards, and staff refund and void in the dashboard; we hear of it by events, whenever they come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q
from django.test import Client
from stripe import StripeClient

from billing.models import CreditEntry, Invoice, Plan
from billing.services import choose_plan
from payments.models import (
    Allocation,
    Collection,
    Customer,
    Difference,
    Dispute,
    FeeSubscription,
    Payment,
    PaymentAttempt,
    PaymentMethod,
    Refund,
    WebhookEvent,
)
from payments.provider import ProviderEvent
from payments.services.customers import ensure_customer
from payments.services.events import apply_event, replay_event
from payments.services.providing import provider
from payments.services.subscriptions import CLOCKS_APART, bring_subscriptions_in_step
from tests.billing.usage import open_account
from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.payments.month import BILLED, collect, collection_of, invoice_of
from tests.payments.signed_events import post

Step = Callable[[], object]
VISA, OTHER_CARD, FAILING = "pm_card_visa", "pm_card_mastercard", "pm_card_chargeCustomerFail"
PRO = "price_soulbox_pro_monthly"
ENDPOINT = "http://127.0.0.1:9/never-called"


@dataclass(slots=True)
class Story:
    """The provider, what is still to happen there, and the events that were told of."""

    stripe: LocalStripe
    random: Random
    steps: list[list[Step]]
    heard: set[str] = field(default_factory=set)

    def goes_on(self) -> Iterator[None]:
        """Let one thing after the other happen, whose turn it is by chance."""
        waiting = [steps for steps in self.steps if steps]
        while waiting:
            steps = self.random.choice(waiting)
            steps.pop(0)()
            waiting = [steps for steps in waiting if steps]
            yield

    def new_events(self) -> list[ProviderEvent]:
        """Return the events that nobody was told of so far, oldest first."""
        every = provider().events(since=BILLED - timedelta(days=1), only_undelivered=False)
        new = [event for event in every if event.id not in self.heard]
        self.heard |= {event.id for event in new}
        return new[::-1]


def begin(stripe: LocalStripe, seed: int, kinds: Sequence[Kind] = ()) -> Story:
    """Open accounts, collect what they owe, and return what will happen to them.

    Of customers of these kinds; else of some, by the seed.
    """
    stripe.reset(seed=seed)
    stripe.set_clock(BILLED.timestamp())
    # So that events are owed to somebody; nobody but the test delivers them.
    stripe.webhooks(ENDPOINT, when="held")
    Plan.objects.filter(code="professional").update(stripe_price_id=PRO)
    random = Random(seed)  # noqa: S311 - repeatable, and no secret
    chosen = kinds or random.sample(CUSTOMERS, k=CUSTOMERS_A_STORY)
    customers = [kind(stripe, random) for kind in chosen]
    collect()
    return Story(stripe, random, [customer.steps() for customer in customers])


class WithInvoice:
    """A customer whose invoice we have collected, or tried to."""

    card = VISA

    def __init__(self, stripe: LocalStripe, random: Random) -> None:
        self.stripe, self.random = stripe, random
        account = open_account(type(self).__name__)
        self.customer_id = ensure_customer(account.pk, now=BILLED)
        stripe.attach(self.customer_id, self.card)
        self.invoice = invoice_of(account)

    def steps(self) -> list[Step]:
        """Return what happens at the provider, in order."""
        raise NotImplementedError

    @property
    def bill(self) -> str:
        """The provider's invoice."""
        return str(collection_of(self.invoice).provider_id)

    def charge(self) -> str:
        """Return what was charged for it."""
        charges = self.stripe.charges()
        return next(str(charge["id"]) for charge in charges if charge["invoice"] == self.bill)

    def refund(self, cents: int | None = None) -> None:
        """Give so much back in the dashboard; all that is left unless it is said."""
        self.stripe.refund(self.charge(), cents)


class Disputed(WithInvoice):
    """Its bank takes the money back, and decides."""

    def steps(self) -> list[Step]:
        """Return the dispute and its end."""
        made: list[str] = []
        outcome = self.random.choice(["won", "lost"])
        return [
            lambda: made.append(self.stripe.dispute(self.charge())["id"]),
            lambda: self.stripe.close_dispute(made[0], outcome),
        ]


class Refunded(WithInvoice):
    """It gets its money back in three parts, in whatever order."""

    def steps(self) -> list[Step]:
        """Return the refunds."""
        parts = self.random.sample([700, 1100, 1800], k=3)
        return [partial(self.refund, cents) for cents in parts]


class ChangesCards(WithInvoice):
    """It adds a card, has it charged from now on, removes the first, and adds it again."""

    def steps(self) -> list[Step]:
        """Return what is done in the portal."""
        cards = [card.id for card in provider().methods_of(self.customer_id).cards]

        def add(token: str, **more: bool) -> None:
            cards.append(self.stripe.attach(self.customer_id, token, **more)["id"])

        return [
            partial(add, OTHER_CARD, default=False),
            lambda: self.stripe.make_default(cards[1]),
            lambda: self.stripe.detach(cards[0]),
            partial(add, VISA),
        ]


class PaysLate(WithInvoice):
    """Its card fails; it pays on the provider's page, and wants some of it back."""

    card = FAILING

    def steps(self) -> list[Step]:
        """Return the payment and what follows."""
        return [
            lambda: self.stripe.pay(self.bill, token=VISA),
            partial(self.refund, 500),
            lambda: self.stripe.dispute(self.charge()),
        ]


class Voided(WithInvoice):
    """Its card fails, and its invoice is voided in the dashboard."""

    card = FAILING

    def steps(self) -> list[Step]:
        """Return that."""
        return [lambda: dashboard(self.stripe).invoices.void_invoice(self.bill)]


class Authenticates(WithInvoice):
    """It confirms the payment to its bank, and gets all of it back."""

    card = "pm_card_authenticationRequired"

    def steps(self) -> list[Step]:
        """Return both."""
        return [lambda: self.stripe.authenticate(self.bill), self.refund]


class Subscribes:
    """The provider collects its fee; staff cancel that in the dashboard, and think better of it."""

    def __init__(self, stripe: LocalStripe, random: Random) -> None:
        self.stripe, self.random = stripe, random
        account = open_account(type(self).__name__)
        stripe.attach(ensure_customer(account.pk, now=BILLED), VISA)
        choose_plan(account.pk, plan_code="professional", now=BILLED - CLOCKS_APART)
        for _ in range(2):
            bring_subscriptions_in_step(BILLED)
        self.subscription_id = str(FeeSubscription.objects.get(account=account).provider_id)

    def steps(self) -> list[Step]:
        """Return what is done in the dashboard; in half of the stories it ends after all."""
        ended: list[Step] = [partial(self._ask, "cancel")]
        return [
            partial(self._ask, "update", cancel_at_period_end=True),
            partial(self._ask, "update", cancel_at_period_end=False),
            *self.random.choice([ended, []]),
        ]

    def _ask(self, method: str, **asked: bool) -> None:
        getattr(dashboard(self.stripe).subscriptions, method)(self.subscription_id, asked)


Kind = type[WithInvoice | Subscribes]
CUSTOMERS: tuple[Kind, ...] = (
    Disputed,
    Refunded,
    ChangesCards,
    PaysLate,
    Voided,
    Authenticates,
    Subscribes,
)
CUSTOMERS_A_STORY = 2


def dashboard(stripe: LocalStripe) -> Any:
    """Return the API as staff's browser uses it, past our own client."""
    return StripeClient(API_KEY, base_addresses={"api": stripe.url}).v1


def tell(client: Client, events: list[ProviderEvent], *, now: datetime) -> None:
    """Post events in this order, each applied as soon as it is stored.

    One that is stored already is applied again, though a second delivery would not do that.
    """
    for event in events:
        is_known = WebhookEvent.objects.filter(event_id=event.id).exists()
        answer = post(client, json.dumps(event.body).encode(), secret=SECRET, at=now)
        assert answer.status_code == 200, answer.content
        if is_known:
            replay_event(event.id, now=now)
        apply_event(event.id, now=now)


def _is_set(column: str) -> ExpressionWrapper[Q]:
    return ExpressionWrapper(Q(**{f"{column}__isnull": False}), output_field=BooleanField())


def state() -> dict[str, list[Any]]:
    """Return everything that the events decide about, in an order that does not depend on them."""
    tables = {
        "invoices": Invoice.objects.values_list("account__name", "kind", "status", "total_amount"),
        "collections": Collection.objects.values_list("pk", "status", "provider_id"),
        "attempts": PaymentAttempt.objects.values_list("collection", "number", "status"),
        "payments": Payment.objects.values_list("provider_id", "amount", "charge_id"),
        "allocations": Allocation.objects.values_list(
            "payment__provider_id", "invoice__kind", "credit_grant__kind", "amount"
        ),
        "refunds": Refund.objects.values_list("provider_id", "amount", "status", "credit_taken"),
        "disputes": Dispute.objects.values_list("provider_id", "amount", "status"),
        "cards": PaymentMethod.objects.values_list(
            "account", "provider_id", "is_default", _is_set("removed_at")
        ),
        "standing": Customer.objects.values_list("account", "standing"),
        "fees": FeeSubscription.objects.values_list(
            "provider_id", "status", "asked_to_end", "period_start", _is_set("ended_at")
        ),
        "credit": CreditEntry.objects.values_list("grant__account", "kind", "amount"),
        "differences": Difference.objects.filter(settled_at__isnull=True).values_list(
            "kind", "subject"
        ),
        "not done": WebhookEvent.objects.filter(status__in=["received", "failed"]).values_list(
            "type", "result"
        ),
    }
    return {name: sorted(map(repr, rows)) for name, rows in tables.items()}
