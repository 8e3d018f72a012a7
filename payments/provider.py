"""What payments asks of a payment provider, in our own words and in our own money.

`payments.stripe` is the one that speaks to Stripe. Every call that changes something takes the
idempotency key that was written down before it; under the same key it happens once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from billing.money import Money
from metering.period import Period


class ProviderError(Exception):
    """A call to the provider did not do what was asked; the subclass says what is known."""


class NotSetUpError(ProviderError):
    """There is no provider to ask; the message names the setting that is missing."""


class NoAnswerError(ProviderError):
    """No answer came, or none that tells: the provider may have done it. Look it up."""


class BrokenError(NoAnswerError):
    """The provider failed, and is at its end with the request: it may have done it, or not."""


class BusyError(ProviderError):
    """The provider did nothing and asks to be asked later."""


class NotFoundError(ProviderError):
    """The provider knows nothing by that name."""


class RefusedError(ProviderError):
    """The provider did nothing, and would not do it later either. `code` is its own word."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class DeclinedError(ProviderError):
    """The customer's bank said no, or wants to be asked by the customer."""

    def __init__(
        self, message: str, *, code: str, decline_code: str = "", needs_customer: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.decline_code = decline_code
        # The customer has to confirm it (3-D Secure), on the provider's page.
        self.needs_customer = needs_customer


@dataclass(frozen=True, slots=True)
class CustomerProfile:
    """What the provider is told of an account. Metadata: `account_id`, organisation, owner."""

    name: str
    email: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Card:
    """A payment method, as far as we keep it."""

    id: str
    customer_id: str
    kind: str
    brand: str = ""
    last4: str = ""
    expires_month: int | None = None
    expires_year: int | None = None


@dataclass(frozen=True, slots=True)
class CustomerMethods:
    """What a customer can pay with, and which of it is charged unless another is named."""

    default_id: str
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class SetupIntent:
    """What a customer's browser needs to add a card, which never passes us by."""

    id: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line of a provider's invoice."""

    description: str
    amount: Money
    period: Period
    metadata: Mapping[str, str] = field(default_factory=dict)
    # The provider's price, of a line of its own.
    price_id: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice to be made at the provider; its lines are added to it, and no others."""

    customer_id: str
    currency: str
    description: str
    metadata: Mapping[str, str]


class BillStatus(StrEnum):
    """Where a provider's invoice stands."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"
    VOID = "void"
    # It was a draft, and was deleted.
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class BillPayment:
    """A payment that a provider's invoice has or had. Only `is_paid` ones brought money."""

    payment_id: str
    amount: Money
    is_paid: bool


@dataclass(frozen=True, slots=True)
class ProviderBill:
    """An invoice as it stands at the provider."""

    id: str
    number: str
    customer_id: str
    status: BillStatus
    total: Money
    amount_due: Money
    amount_paid: Money
    starting_balance: Money
    tax: Money
    has_lines: bool
    attempt_count: int
    hosted_url: str
    created_at: datetime
    metadata: Mapping[str, str]
    # Of the provider's own invoice for a subscription: which one.
    subscription_id: str = ""
    # The first ten; the provider's own invoices for subscriptions have no more.
    lines: Sequence[BillLine] = ()
    payments: Sequence[BillPayment] = ()


class PaymentState(StrEnum):
    """Where a payment stands at the provider."""

    SUCCEEDED = "succeeded"
    PROCESSING = "processing"
    NEEDS_CUSTOMER = "needs_customer"
    NOT_PAID = "not_paid"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ProviderPayment:
    """A payment as it stands at the provider."""

    id: str
    customer_id: str
    state: PaymentState
    amount: Money
    received: Money
    charge_id: str
    paid_at: datetime | None
    created_at: datetime
    failure_code: str = ""
    decline_code: str = ""
    failure_message: str = ""


class RefundState(StrEnum):
    """Where a refund stands at the provider."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProviderRefund:
    """A refund as it stands at the provider."""

    id: str
    payment_id: str
    amount: Money
    state: RefundState
    reason: str
    created_at: datetime
    failure: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProviderDispute:
    """A dispute as it stands at the provider; `status` is one of `payments.models.Dispute`'s."""

    id: str
    payment_id: str
    amount: Money
    status: str
    reason: str
    opened_at: datetime
    answer_by: datetime | None


@dataclass(frozen=True, slots=True)
class SubscriptionOrder:
    """A subscription to be made at the provider; its first period starts as it is made."""

    customer_id: str
    price_id: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProviderSubscription:
    """A subscription as it stands at the provider, with the period of its one item."""

    id: str
    customer_id: str
    item_id: str
    price_id: str
    # The provider's own word: `active`, `past_due`, `canceled` and others.
    status: str
    period: Period
    cancels_at_period_end: bool
    ended_at: datetime | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """Something that the provider says happened. `body` is all of it, as it came."""

    id: str
    type: str
    object_type: str
    object_id: str
    api_version: str
    is_live_mode: bool
    happened_at: datetime
    body: Mapping[str, Any]


class Provider(Protocol):
    """A payment provider. Every method raises ProviderError's subclasses and nothing else."""

    # Customers and what they pay with

    def create_customer(self, profile: CustomerProfile, *, key: str) -> str:
        """Make a customer; return its id."""

    def find_customer(self, account_id: UUID) -> str | None:
        """Return the id of the account's customer, if one was made a minute ago or longer."""

    def update_customer(self, customer_id: str, profile: CustomerProfile, *, key: str) -> None:
        """Tell the provider what has changed."""

    def methods_of(self, customer_id: str) -> CustomerMethods:
        """Return what the customer can pay with."""

    def method(self, method_id: str) -> Card:
        """Return one payment method. Its customer is empty once it is detached."""

    def set_default_method(self, customer_id: str, method_id: str, *, key: str) -> None:
        """Charge this one from now on."""

    def detach_method(self, method_id: str, *, key: str) -> None:
        """Take a payment method from its customer, for ever."""

    def create_setup_intent(self, customer_id: str, *, key: str) -> SetupIntent:
        """Begin adding a card."""

    def setup_customer(self, setup_intent_id: str) -> str:
        """Return the id of the customer that a setup intent is about; empty: nobody."""

    def create_portal_session(self, customer_id: str, *, return_url: str) -> str:
        """Return the address of a page where the customer manages cards. It soon expires."""

    # Invoices and payments

    def create_bill(self, bill: Bill, *, key: str) -> ProviderBill:
        """Make a draft without any line, which nothing finalises but `finalise_bill`."""

    def add_lines(self, bill_id: str, lines: Sequence[BillLine], *, key: str) -> ProviderBill:
        """Add exactly these lines to a draft."""

    def finalise_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        """Make a draft final; nothing is charged by it."""

    def pay_bill(self, bill_id: str, *, method_id: str, key: str) -> ProviderBill:
        """Charge a payment method for a final invoice, without the customer. DeclinedError."""

    def void_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        """Take a final invoice back."""

    def delete_draft(self, bill_id: str, *, key: str) -> None:
        """Delete a draft."""

    def write_off_bill(self, bill_id: str, *, key: str) -> ProviderBill:
        """Say that nobody expects its money; it may be paid all the same."""

    def bill(self, bill_id: str) -> ProviderBill:
        """Return an invoice with its payments."""

    def find_bills(self, customer_id: str, metadata: Mapping[str, str]) -> list[ProviderBill]:
        """Return the customer's invoices that carry this metadata."""

    def bill_of_payment(self, payment_id: str) -> str | None:
        """Return the id of the invoice that a payment is for, if it is for one."""

    def payment(self, payment_id: str) -> ProviderPayment:
        """Return a payment."""

    # Refunds and disputes

    def create_refund(
        self, payment_id: str, amount: Money, *, metadata: Mapping[str, str], key: str
    ) -> ProviderRefund:
        """Give so much of a payment back."""

    def refund(self, refund_id: str) -> ProviderRefund:
        """Return a refund."""

    def refunds_of(self, payment_id: str) -> list[ProviderRefund]:
        """Return all refunds of a payment."""

    def payment_of_charge(self, charge_id: str) -> str | None:
        """Return the id of the payment that a charge is of."""

    def dispute(self, dispute_id: str) -> ProviderDispute:
        """Return a dispute."""

    # Subscriptions whose fee the provider collects

    def create_subscription(self, order: SubscriptionOrder, *, key: str) -> ProviderSubscription:
        """Start a subscription."""

    def change_subscription(
        self,
        subscription: ProviderSubscription,
        *,
        price_id: str,
        metadata: Mapping[str, str],
        at_once: bool,
        key: str,
    ) -> ProviderSubscription:
        """Move a subscription to another price, from the next period on or at once.

        At once, the rest of the period is charged at it, less what was paid for it.
        """

    def cancel_subscription(
        self, subscription_id: str, *, at_period_end: bool, key: str
    ) -> ProviderSubscription:
        """End a subscription with its period, or take that back."""

    def end_subscription(self, subscription_id: str, *, key: str) -> ProviderSubscription:
        """End a subscription now. Nothing of its fee is given back there."""

    def subscription(self, subscription_id: str) -> ProviderSubscription:
        """Return a subscription."""

    def find_subscriptions(
        self, customer_id: str, metadata: Mapping[str, str]
    ) -> list[ProviderSubscription]:
        """Return the customer's subscriptions, ended ones too, that carry this metadata."""

    # For comparing both sides: everything made in [since, until) by the provider's clock, oldest
    # or newest first. No `until`: all that there is since then.

    def events(
        self, *, since: datetime, until: datetime | None = None, only_undelivered: bool
    ) -> Iterator[ProviderEvent]:
        """Yield what happened; the provider keeps 30 days of it."""

    def event(self, event_id: str) -> ProviderEvent:
        """Return one event."""

    def bills(self, *, since: datetime, until: datetime | None = None) -> Iterator[ProviderBill]:
        """Yield the invoices that were made."""

    def payments(
        self, *, since: datetime, until: datetime | None = None
    ) -> Iterator[ProviderPayment]:
        """Yield the payments that were begun."""

    def refunds(
        self, *, since: datetime, until: datetime | None = None
    ) -> Iterator[ProviderRefund]:
        """Yield the refunds that were made."""

    def smallest_charge(self, currency: str) -> Money:
        """Return the least that the provider charges in the currency."""
