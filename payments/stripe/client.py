"""Stripe, through its own SDK: the one place that imports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import stripe

from billing.money import Money
from payments.provider import (
    Bill,
    BillLine,
    BrokenError,
    BusyError,
    Card,
    CustomerMethods,
    CustomerProfile,
    DeclinedError,
    NoAnswerError,
    NotFoundError,
    ProviderBill,
    ProviderDispute,
    ProviderEvent,
    ProviderPayment,
    ProviderRefund,
    ProviderSubscription,
    RefusedError,
    SetupIntent,
    SubscriptionOrder,
)
from payments.stripe import shapes
from payments.stripe.minor_units import minor_units, smallest_charge

if TYPE_CHECKING:
    from stripe._request_options import RequestOptions
    from stripe.params import SubscriptionCreateParams

API_VERSION = "2026-05-27.dahlia"
"""Of the OpenAPI document that the local server holds every call against."""
READ_RETRIES = 1
"""Of what changes nothing. What changes something is tried once: no answer is looked up."""
PAGE = 100
MOST_METHODS = 100
_BILL: list[str] = ["payments"]
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """Where Stripe is, who we are to it, and how long one answer may take."""

    api_key: str
    api_base: str
    timeout_s: float


class Stripe:
    """The payment provider Stripe, as `payments.provider.Provider` describes one."""

    def __init__(self, settings: StripeSettings) -> None:
        self._stripe = stripe.StripeClient(
            settings.api_key,
            stripe_version=API_VERSION,
            base_addresses={"api": settings.api_base},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=settings.timeout_s),
        ).v1

    # Customers and what they pay with

    def create_customer(self, profile: CustomerProfile, *, key: str) -> str:
        with _our_errors():
            made = self._stripe.customers.create(
                {
                    "name": profile.name,
                    "email": profile.email,
                    "metadata": dict(profile.metadata),
                },
                _once(key),
            )
        return made.id

    def find_customer(self, account_id: UUID) -> str | None:
        with _our_errors():
            found = self._stripe.customers.search(
                {"query": f"metadata['account_id']:'{account_id}'", "limit": 2}, _READ
            )
        return min((one.id for one in found.data), default=None)

    def update_customer(self, customer_id: str, profile: CustomerProfile, *, key: str) -> None:
        with _our_errors():
            self._stripe.customers.update(
                customer_id,
                {
                    "name": profile.name,
                    "email": profile.email,
                    "metadata": dict(profile.metadata),
                },
                _once(key),
            )

    def methods_of(self, customer_id: str) -> CustomerMethods:
        with _our_errors():
            customer = self._stripe.customers.retrieve(customer_id, options=_READ)
            methods = self._stripe.customers.payment_methods.list(
                customer_id, {"limit": MOST_METHODS}, _READ
            )
        settings = _json(customer).get("invoice_settings") or {}
        return CustomerMethods(
            default_id=shapes.id_of(settings.get("default_payment_method")),
            cards=tuple(shapes.card_of(_json(method)) for method in methods.data),
        )

    def method(self, method_id: str) -> Card:
        with _our_errors():
            return shapes.card_of(
                _json(self._stripe.payment_methods.retrieve(method_id, options=_READ))
            )

    def set_default_method(self, customer_id: str, method_id: str, *, key: str) -> None:
        with _our_errors():
            self._stripe.customers.update(
                customer_id,
                {"invoice_settings": {"default_payment_method": method_id}},
                _once(key),
            )

    def detach_method(self, method_id: str, *, key: str) -> None:
        with _our_errors():
            self._stripe.payment_methods.detach(method_id, options=_once(key))

    def create_setup_intent(self, customer_id: str, *, key: str) -> SetupIntent:
        with _our_errors():
            intent = self._stripe.setup_intents.create(
                {
                    "customer": customer_id,
                    "usage": "off_session",
                    "payment_method_types": ["card"],
                },
                _once(key),
            )
        return SetupIntent(intent.id, intent.client_secret or "")

    def setup_customer(self, setup_intent_id: str) -> str:
        with _our_errors():
            intent = self._stripe.setup_intents.retrieve(setup_intent_id, options=_READ)
        return shapes.id_of(_json(intent).get("customer"))

    def create_portal_session(self, customer_id: str, *, return_url: str) -> str:
        with _our_errors():
            # Another session does no harm, so it needs no key of ours.
            session = self._stripe.billing_portal.sessions.create(
                {"customer": customer_id, "return_url": return_url}
            )
        return session.url

    # Invoices and payments

    def create_bill(self, bill: Bill, *, key: str) -> ProviderBill:
        with _our_errors():
            made = self._stripe.invoices.create(
                {
                    "customer": bill.customer_id,
                    "currency": bill.currency.lower(),
                    "description": bill.description,
                    "metadata": dict(bill.metadata),
                    "collection_method": "charge_automatically",
                    "auto_advance": False,
                    "pending_invoice_items_behavior": "exclude",
                    "expand": _BILL,
                },
                _once(key),
            )
        return shapes.bill_of(_json(made))

    def add_lines(self, bill_id: str, lines: Sequence[BillLine], *, key: str) -> ProviderBill:
        with _our_errors():
            bill = self._stripe.invoices.add_lines(
                bill_id,
                {
                    "lines": [
                        {
                            "amount": minor_units(line.amount),
                            "description": line.description,
                            # A coupon of the customer's would change our total.
                            "discountable": False,
                            "period": {
                                "start": int(line.period.start.timestamp()),
                                "end": int(line.period.end.timestamp()),
                            },
                            "metadata": dict(line.metadata),
                        }
                        for line in lines
                    ],
                    "expand": _BILL,
                },
                _once(key),
            )
        return shapes.bill_of(_json(bill))

    def finalise_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with _our_errors():
            bill = self._stripe.invoices.finalize_invoice(
                bill_id, {"auto_advance": False, "expand": _BILL}, _once(key)
            )
        return shapes.bill_of(_json(bill))

    def pay_bill(self, bill_id: str, *, method_id: str, key: str) -> ProviderBill:
        with _our_errors():
            bill = self._stripe.invoices.pay(
                bill_id,
                {"payment_method": method_id, "off_session": True, "expand": _BILL},
                _once(key),
            )
        return shapes.bill_of(_json(bill))

    def void_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with _our_errors():
            bill = self._stripe.invoices.void_invoice(bill_id, {"expand": _BILL}, _once(key))
        return shapes.bill_of(_json(bill))

    def delete_draft(self, bill_id: str, *, key: str) -> None:
        with _our_errors():
            self._stripe.invoices.delete(bill_id, options=_once(key))

    def write_off_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with _our_errors():
            bill = self._stripe.invoices.mark_uncollectible(bill_id, {"expand": _BILL}, _once(key))
        return shapes.bill_of(_json(bill))

    def bill(self, bill_id: str) -> ProviderBill:
        with _our_errors():
            return shapes.bill_of(
                _json(self._stripe.invoices.retrieve(bill_id, {"expand": _BILL}, _READ))
            )

    def find_bills(self, customer_id: str, metadata: Mapping[str, str]) -> list[ProviderBill]:
        found = self._pages(
            self._stripe.invoices.list,
            {"customer": customer_id, "limit": PAGE, "expand": ["data.payments"]},
        )
        bills = (shapes.bill_of(one) for one in found)
        return [bill for bill in bills if metadata.items() <= bill.metadata.items()]

    def bill_of_payment(self, payment_id: str) -> str | None:
        with _our_errors():
            found = self._stripe.invoice_payments.list(
                {"payment": {"type": "payment_intent", "payment_intent": payment_id}}, _READ
            )
        return next((shapes.id_of(_json(one)["invoice"]) for one in found.data), None)

    def payment(self, payment_id: str) -> ProviderPayment:
        with _our_errors():
            intent = self._stripe.payment_intents.retrieve(
                payment_id, {"expand": ["latest_charge"]}, _READ
            )
        return shapes.payment_of(_json(intent))

    # Refunds and disputes

    def create_refund(
        self, payment_id: str, amount: Money, *, metadata: Mapping[str, str], key: str
    ) -> ProviderRefund:
        with _our_errors():
            refund = self._stripe.refunds.create(
                {
                    "payment_intent": payment_id,
                    "amount": minor_units(amount),
                    "metadata": dict(metadata),
                },
                _once(key),
            )
        return shapes.refund_of(_json(refund))

    def refund(self, refund_id: str) -> ProviderRefund:
        with _our_errors():
            return shapes.refund_of(_json(self._stripe.refunds.retrieve(refund_id, options=_READ)))

    def refunds_of(self, payment_id: str) -> list[ProviderRefund]:
        found = self._pages(
            self._stripe.refunds.list, {"payment_intent": payment_id, "limit": PAGE}
        )
        return [shapes.refund_of(one) for one in found]

    def payment_of_charge(self, charge_id: str) -> str | None:
        with _our_errors():
            charge = self._stripe.charges.retrieve(charge_id, options=_READ)
        return shapes.id_of(_json(charge).get("payment_intent")) or None

    def dispute(self, dispute_id: str) -> ProviderDispute:
        with _our_errors():
            return shapes.dispute_of(
                _json(self._stripe.disputes.retrieve(dispute_id, options=_READ))
            )

    # Subscriptions whose fee Stripe collects

    def create_subscription(self, order: SubscriptionOrder, *, key: str) -> ProviderSubscription:
        asked: SubscriptionCreateParams = {
            "customer": order.customer_id,
            "items": [{"price": order.price_id}],
            "metadata": dict(order.metadata),
            "payment_behavior": "allow_incomplete",
        }
        with _our_errors():
            made = self._stripe.subscriptions.create(asked, _once(key))
        return shapes.subscription_of(_json(made))

    def change_subscription(
        self,
        subscription: ProviderSubscription,
        *,
        price_id: str,
        metadata: Mapping[str, str],
        at_once: bool,
        key: str,
    ) -> ProviderSubscription:
        with _our_errors():
            changed = self._stripe.subscriptions.update(
                subscription.id,
                {
                    "items": [{"id": subscription.item_id, "price": price_id}],
                    "metadata": dict(metadata),
                    "proration_behavior": "always_invoice" if at_once else "none",
                },
                _once(key),
            )
        return shapes.subscription_of(_json(changed))

    def cancel_subscription(
        self, subscription_id: str, *, at_period_end: bool, key: str
    ) -> ProviderSubscription:
        with _our_errors():
            changed = self._stripe.subscriptions.update(
                subscription_id, {"cancel_at_period_end": at_period_end}, _once(key)
            )
        return shapes.subscription_of(_json(changed))

    def end_subscription(self, subscription_id: str, *, key: str) -> ProviderSubscription:
        with _our_errors():
            ended = self._stripe.subscriptions.cancel(
                # What is unused is given back by a credit note of ours: a credit there would go
                # to the customer's balance, which no invoice of ours may rest on.
                subscription_id,
                {"prorate": False, "invoice_now": False},
                _once(key),
            )
        return shapes.subscription_of(_json(ended))

    def subscription(self, subscription_id: str) -> ProviderSubscription:
        with _our_errors():
            return shapes.subscription_of(
                _json(self._stripe.subscriptions.retrieve(subscription_id, options=_READ))
            )

    def find_subscriptions(
        self, customer_id: str, metadata: Mapping[str, str]
    ) -> list[ProviderSubscription]:
        found = self._pages(
            self._stripe.subscriptions.list,
            {"customer": customer_id, "status": "all", "limit": PAGE},
        )
        subscriptions = (shapes.subscription_of(one) for one in found)
        return [one for one in subscriptions if metadata.items() <= one.metadata.items()]

    # For comparing both sides

    def events(self, *, since: datetime, only_undelivered: bool) -> Iterator[ProviderEvent]:
        asked: dict[str, Any] = {"created": {"gte": int(since.timestamp())}, "limit": PAGE}
        if only_undelivered:
            asked["delivery_success"] = False
        yield from map(shapes.event_of, self._pages(self._stripe.events.list, asked))

    def event(self, event_id: str) -> ProviderEvent:
        with _our_errors():
            return shapes.event_of(_json(self._stripe.events.retrieve(event_id, options=_READ)))

    def bills(self, *, since: datetime) -> Iterator[ProviderBill]:
        asked = {**_made_since(since), "expand": ["data.payments"]}
        yield from map(shapes.bill_of, self._pages(self._stripe.invoices.list, asked))

    def payments(self, *, since: datetime) -> Iterator[ProviderPayment]:
        asked = {**_made_since(since), "expand": ["data.latest_charge"]}
        yield from map(shapes.payment_of, self._pages(self._stripe.payment_intents.list, asked))

    def refunds(self, *, since: datetime) -> Iterator[ProviderRefund]:
        yield from map(shapes.refund_of, self._pages(self._stripe.refunds.list, _made_since(since)))

    def smallest_charge(self, currency: str) -> Money:
        return smallest_charge(currency)

    def _pages(self, ask: Any, asked: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield what a list of Stripe's holds, page by page, the newest first."""
        after: dict[str, str] = {}
        while True:
            with _our_errors():
                page = _json(ask({**asked, **after}, _READ))
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}


def _once(key: str) -> RequestOptions:
    return {"idempotency_key": key}


_READ: RequestOptions = {"max_network_retries": READ_RETRIES}


def _made_since(since: datetime) -> dict[str, Any]:
    return {"created": {"gte": int(since.timestamp())}, "limit": PAGE}


def _json(answer: Any) -> dict[str, Any]:
    """Return one of the SDK's objects as plain values."""
    plain: dict[str, Any] = answer.to_dict(for_json=True)
    return plain


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except stripe.CardError as error:
        raise _declined(error) from error
    except stripe.RateLimitError as error:
        raise BusyError(str(error)) from error
    except stripe.IdempotencyError as error:
        # The key is another request's: a mistake of ours, and nothing was done.
        raise RefusedError(str(error), code="idempotency_error") from error
    except stripe.InvalidRequestError as error:
        if error.code == "resource_missing" and error.http_status == 404:
            raise NotFoundError(str(error)) from error
        raise RefusedError(str(error), code=error.code or "") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        # The key is wrong or may not do it: nothing of the customer's; later it may be right.
        raise BusyError(str(error)) from error
    except stripe.APIConnectionError as error:
        raise NoAnswerError(str(error)) from error
    except stripe.StripeError as error:
        if error.http_status and error.http_status >= _SERVER_ERROR:
            raise BrokenError(str(error)) from error
        # 409: the same request is still under way.
        raise NoAnswerError(str(error)) from error


def _declined(error: stripe.CardError) -> DeclinedError:
    told = error.error.to_dict() if error.error else {}
    code = error.code or ""
    decline_code = told.get("decline_code") or ""
    return DeclinedError(
        error.user_message or str(error),
        code=code,
        decline_code=decline_code,
        needs_customer="authentication_required" in {code, decline_code}
        or code == "invoice_payment_intent_requires_action",
    )
