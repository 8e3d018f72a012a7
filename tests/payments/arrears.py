"""Accounts whose payments fail, and the clock that duns them."""

from __future__ import annotations

from datetime import datetime, timedelta

from billing.models import Account, Invoice
from payments.models import Customer, DunningCase, PaymentAttempt, PlatformRequest
from payments.services.customers import ensure_customer
from payments.services.dunning_steps import (
    refresh_out_of_step,
    retry_on_new_cards,
    take_due_steps,
)
from tests.billing.mail import open_with_owner
from tests.billing.usage import JUNE, bill, record_usage
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, collect, invoice_of

DAY = timedelta(days=1)


class Debtor:
    """An account with one card, and an invoice that could not be paid with it."""

    def __init__(
        self,
        stripe: LocalStripe,
        token: str = "pm_card_chargeCustomerFail",  # noqa: S107 - a test card
        *,
        name: str = "Ada",
    ) -> None:
        self.stripe = stripe
        self.account = open_with_owner(name, f"{name.casefold()}@example.com")
        self.customer_id = ensure_customer(self.account.pk, now=BILLED)
        self.card = stripe.attach(self.customer_id, token)["id"] if token else ""
        self.invoice = invoice_of(self.account)
        collect(BILLED)

    @property
    def status(self) -> str:
        """The invoice's."""
        self.invoice.refresh_from_db()
        return self.invoice.status

    @property
    def standing(self) -> str:
        """The account's."""
        return Customer.objects.get(pk=self.account.pk).standing

    @property
    def case(self) -> DunningCase:
        """The invoice's newest."""
        return DunningCase.objects.filter(invoice=self.invoice).latest("pk")

    @property
    def attempts(self) -> list[PaymentAttempt]:
        """Oldest first."""
        rows = PaymentAttempt.objects.filter(collection__parts__invoice=self.invoice)
        return list(rows.order_by("pk"))

    @property
    def asked(self) -> list[str]:
        """What the platform was asked to do, in order."""
        rows = PlatformRequest.objects.filter(account=self.account).order_by("pk")
        return list(rows.values_list("action", flat=True))

    @property
    def bill(self) -> str:
        """The provider's id of its invoice."""
        return str(self.attempts[-1].collection.provider_id)


def dun(now: datetime) -> None:
    """Do what the sweeps do at `now`, until nothing more is due."""
    refresh_out_of_step(now)
    retry_on_new_cards(now)
    for _ in range(10):
        taken = take_due_steps(now)
        collect(now)
        if not taken:
            return
    raise AssertionError("There is always something due.")


def days(number: float) -> datetime:
    """Return the moment so many days after the first failure."""
    return BILLED + number * DAY


def another_invoice_of(account: Account) -> Invoice:
    """Bill the account for some usage of June."""
    record_usage(account.pk, JUNE.start + DAY, cpu_s=3_000_000)
    return bill(account, JUNE)
