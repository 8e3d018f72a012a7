"""Stripe, through its own SDK: the one place that imports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import stripe

from billing.money import Money
from payments.provider import (
    Bill,
    BillLine,
    Card,
    CustomerMethods,
    CustomerProfile,
    ProviderBill,
    ProviderDispute,
    ProviderEvent,
    ProviderPayment,
    ProviderRefund,
    SetupIntent,
)
from payments.stripe import shapes
from payments.stripe.asking import PAGE, READ, json_of, made_in, once, pages
from payments.stripe.errors import our_errors
from payments.stripe.minor_units import minor_units, smallest_charge
from payments.stripe.subscriptions import Subscriptions

API_VERSION = "2026-05-27.dahlia"
"""Of the OpenAPI document that the local server holds every call against."""
MOST_METHODS = 100
_BILL: list[str] = ["payments"]


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """Where Stripe is, who we are to it, and how long one answer may take."""

    api_key: str
    api_base: str
    timeout_s: float


class Stripe(Subscriptions):
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
        with our_errors():
            made = self._stripe.customers.create(
                {
                    "name": profile.name,
                    "email": profile.email,
                    "metadata": dict(profile.metadata),
                },
                once(key),
            )
        return made.id

    def find_customer(self, account_id: UUID) -> str | None:
        with our_errors():
            found = self._stripe.customers.search(
                {"query": f"metadata['account_id']:'{account_id}'", "limit": 2}, READ
            )
        return min((one.id for one in found.data), default=None)

    def update_customer(self, customer_id: str, profile: CustomerProfile, *, key: str) -> None:
        with our_errors():
            self._stripe.customers.update(
                customer_id,
                {
                    "name": profile.name,
                    "email": profile.email,
                    "metadata": dict(profile.metadata),
                },
                once(key),
            )

    def methods_of(self, customer_id: str) -> CustomerMethods:
        with our_errors():
            customer = self._stripe.customers.retrieve(customer_id, options=READ)
            methods = self._stripe.customers.payment_methods.list(
                customer_id, {"limit": MOST_METHODS}, READ
            )
        settings = json_of(customer).get("invoice_settings") or {}
        return CustomerMethods(
            default_id=shapes.id_of(settings.get("default_payment_method")),
            cards=tuple(shapes.card_of(json_of(method)) for method in methods.data),
        )

    def method(self, method_id: str) -> Card:
        with our_errors():
            return shapes.card_of(
                json_of(self._stripe.payment_methods.retrieve(method_id, options=READ))
            )

    def set_default_method(self, customer_id: str, method_id: str, *, key: str) -> None:
        with our_errors():
            self._stripe.customers.update(
                customer_id,
                {"invoice_settings": {"default_payment_method": method_id}},
                once(key),
            )

    def detach_method(self, method_id: str, *, key: str) -> None:
        with our_errors():
            self._stripe.payment_methods.detach(method_id, options=once(key))

    def create_setup_intent(self, customer_id: str, *, key: str) -> SetupIntent:
        with our_errors():
            intent = self._stripe.setup_intents.create(
                {
                    "customer": customer_id,
                    "usage": "off_session",
                    "payment_method_types": ["card"],
                },
                once(key),
            )
        return SetupIntent(intent.id, intent.client_secret or "")

    def setup_customer(self, setup_intent_id: str) -> str:
        with our_errors():
            intent = self._stripe.setup_intents.retrieve(setup_intent_id, options=READ)
        return shapes.id_of(json_of(intent).get("customer"))

    def create_portal_session(self, customer_id: str, *, return_url: str) -> str:
        with our_errors():
            # Another session does no harm, so it needs no key of ours.
            session = self._stripe.billing_portal.sessions.create(
                {"customer": customer_id, "return_url": return_url}
            )
        return session.url

    # Invoices and payments

    def create_bill(self, bill: Bill, *, key: str) -> ProviderBill:
        with our_errors():
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
                once(key),
            )
        return shapes.bill_of(json_of(made))

    def add_lines(self, bill_id: str, lines: Sequence[BillLine], *, key: str) -> ProviderBill:
        with our_errors():
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
                once(key),
            )
        return shapes.bill_of(json_of(bill))

    def finalise_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with our_errors():
            bill = self._stripe.invoices.finalize_invoice(
                bill_id, {"auto_advance": False, "expand": _BILL}, once(key)
            )
        return shapes.bill_of(json_of(bill))

    def pay_bill(self, bill_id: str, *, method_id: str, key: str) -> ProviderBill:
        with our_errors():
            bill = self._stripe.invoices.pay(
                bill_id,
                {"payment_method": method_id, "off_session": True, "expand": _BILL},
                once(key),
            )
        return shapes.bill_of(json_of(bill))

    def void_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with our_errors():
            bill = self._stripe.invoices.void_invoice(bill_id, {"expand": _BILL}, once(key))
        return shapes.bill_of(json_of(bill))

    def delete_draft(self, bill_id: str, *, key: str) -> None:
        with our_errors():
            self._stripe.invoices.delete(bill_id, options=once(key))

    def write_off_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        with our_errors():
            bill = self._stripe.invoices.mark_uncollectible(bill_id, {"expand": _BILL}, once(key))
        return shapes.bill_of(json_of(bill))

    def bill(self, bill_id: str) -> ProviderBill:
        with our_errors():
            return shapes.bill_of(
                json_of(self._stripe.invoices.retrieve(bill_id, {"expand": _BILL}, READ))
            )

    def find_bills(self, customer_id: str, metadata: Mapping[str, str]) -> list[ProviderBill]:
        found = pages(
            self._stripe.invoices.list,
            {"customer": customer_id, "limit": PAGE, "expand": ["data.payments"]},
        )
        bills = (shapes.bill_of(one) for one in found)
        return [bill for bill in bills if metadata.items() <= bill.metadata.items()]

    def bill_of_payment(self, payment_id: str) -> str | None:
        with our_errors():
            found = self._stripe.invoice_payments.list(
                {"payment": {"type": "payment_intent", "payment_intent": payment_id}}, READ
            )
        return next((shapes.id_of(json_of(one)["invoice"]) for one in found.data), None)

    def payment(self, payment_id: str) -> ProviderPayment:
        with our_errors():
            intent = self._stripe.payment_intents.retrieve(
                payment_id, {"expand": ["latest_charge"]}, READ
            )
        return shapes.payment_of(json_of(intent))

    # Refunds and disputes

    def create_refund(
        self, payment_id: str, amount: Money, *, metadata: Mapping[str, str], key: str
    ) -> ProviderRefund:
        with our_errors():
            refund = self._stripe.refunds.create(
                {
                    "payment_intent": payment_id,
                    "amount": minor_units(amount),
                    "metadata": dict(metadata),
                },
                once(key),
            )
        return shapes.refund_of(json_of(refund))

    def refund(self, refund_id: str) -> ProviderRefund:
        with our_errors():
            return shapes.refund_of(json_of(self._stripe.refunds.retrieve(refund_id, options=READ)))

    def refunds_of(self, payment_id: str) -> list[ProviderRefund]:
        found = pages(self._stripe.refunds.list, {"payment_intent": payment_id, "limit": PAGE})
        return [shapes.refund_of(one) for one in found]

    def payment_of_charge(self, charge_id: str) -> str | None:
        with our_errors():
            charge = self._stripe.charges.retrieve(charge_id, options=READ)
        return shapes.id_of(json_of(charge).get("payment_intent")) or None

    def dispute(self, dispute_id: str) -> ProviderDispute:
        with our_errors():
            return shapes.dispute_of(
                json_of(self._stripe.disputes.retrieve(dispute_id, options=READ))
            )

    # For comparing both sides

    def events(
        self, *, since: datetime, until: datetime | None = None, only_undelivered: bool
    ) -> Iterator[ProviderEvent]:
        asked = made_in(since, until)
        if only_undelivered:
            asked["delivery_success"] = False
        yield from map(shapes.event_of, pages(self._stripe.events.list, asked))

    def event(self, event_id: str) -> ProviderEvent:
        with our_errors():
            return shapes.event_of(json_of(self._stripe.events.retrieve(event_id, options=READ)))

    def bills(self, *, since: datetime, until: datetime | None = None) -> Iterator[ProviderBill]:
        asked = {**made_in(since, until), "expand": ["data.payments"]}
        yield from map(shapes.bill_of, pages(self._stripe.invoices.list, asked))

    def payments(
        self, *, since: datetime, until: datetime | None = None
    ) -> Iterator[ProviderPayment]:
        asked = {**made_in(since, until), "expand": ["data.latest_charge"]}
        yield from map(shapes.payment_of, pages(self._stripe.payment_intents.list, asked))

    def refunds(
        self, *, since: datetime, until: datetime | None = None
    ) -> Iterator[ProviderRefund]:
        asked = made_in(since, until)
        yield from map(shapes.refund_of, pages(self._stripe.refunds.list, asked))

    def smallest_charge(self, currency: str) -> Money:
        return smallest_charge(currency)
