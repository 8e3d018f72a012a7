"""Subscriptions whose fee Stripe collects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from payments.provider import ProviderSubscription, SubscriptionOrder
from payments.stripe.asking import PAGE, READ, json_of, once, pages
from payments.stripe.errors import our_errors
from payments.stripe.shapes import subscription_of

if TYPE_CHECKING:
    from stripe import V1Services
    from stripe.params import SubscriptionCreateParams


class Subscriptions:
    """The part of the provider that is about subscriptions."""

    _stripe: V1Services

    def create_subscription(self, order: SubscriptionOrder, *, key: str) -> ProviderSubscription:
        asked: SubscriptionCreateParams = {
            "customer": order.customer_id,
            "items": [{"price": order.price_id}],
            "metadata": dict(order.metadata),
            "payment_behavior": "allow_incomplete",
        }
        with our_errors():
            made = self._stripe.subscriptions.create(asked, once(key))
        return subscription_of(json_of(made))

    def change_subscription(
        self,
        subscription: ProviderSubscription,
        *,
        price_id: str,
        metadata: Mapping[str, str],
        at_once: bool,
        key: str,
    ) -> ProviderSubscription:
        with our_errors():
            changed = self._stripe.subscriptions.update(
                subscription.id,
                {
                    "items": [{"id": subscription.item_id, "price": price_id}],
                    "metadata": dict(metadata),
                    "proration_behavior": "always_invoice" if at_once else "none",
                },
                once(key),
            )
        return subscription_of(json_of(changed))

    def cancel_subscription(
        self, subscription_id: str, *, at_period_end: bool, key: str
    ) -> ProviderSubscription:
        with our_errors():
            changed = self._stripe.subscriptions.update(
                subscription_id, {"cancel_at_period_end": at_period_end}, once(key)
            )
        return subscription_of(json_of(changed))

    def end_subscription(self, subscription_id: str, *, key: str) -> ProviderSubscription:
        with our_errors():
            ended = self._stripe.subscriptions.cancel(
                # What is unused is given back by a credit note of ours: a credit there would go
                # to the customer's balance, which no invoice of ours may rest on.
                subscription_id,
                {"prorate": False, "invoice_now": False},
                once(key),
            )
        return subscription_of(json_of(ended))

    def subscription(self, subscription_id: str) -> ProviderSubscription:
        with our_errors():
            return subscription_of(
                json_of(self._stripe.subscriptions.retrieve(subscription_id, options=READ))
            )

    def find_subscriptions(
        self, customer_id: str, metadata: Mapping[str, str]
    ) -> list[ProviderSubscription]:
        found = pages(
            self._stripe.subscriptions.list,
            {"customer": customer_id, "status": "all", "limit": PAGE},
        )
        subscriptions = (subscription_of(one) for one in found)
        return [one for one in subscriptions if metadata.items() <= one.metadata.items()]
