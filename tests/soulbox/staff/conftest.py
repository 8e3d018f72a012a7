from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db.models import Model

from billing import services
from billing.credits import CreditKind
from billing.models import (
    Account,
    AccountClosing,
    ApiKey,
    Budget,
    BudgetCap,
    Correction,
    CreditEntry,
    DiscountRule,
    MailMessage,
    Membership,
    Plan,
    Price,
    PriceBook,
    PriceBookVersion,
)
from metering.keys import issue_metering_key
from metering.models import Host, Sandbox
from payments.models import (
    Collection,
    Customer,
    Difference,
    DunningCase,
    DunningStep,
    Reconciliation,
)
from payments.services.offline import Transfer, record_offline_payment
from payments.services.refunds import Proposal, propose_refund
from tests.billing.usage import AFTER_MAY, NOON, bill, open_account, record_usage
from tests.payments.signed_events import store


def waiting_correction() -> Correction:
    """A credit note above the threshold, which a second person has to approve."""
    other = open_account("Bob")
    record_usage(other.pk, cpu_s=50_000_000)
    by = services.Author("Wrong price", User.objects.create_user("author").pk, "case-1")
    return services.credit_in_full(bill(other).pk, by=by, now=AFTER_MAY)


def rows_of_payments(account: Account) -> list[Model]:
    """What collecting an invoice leaves, without a provider to ask."""
    collection = Collection.objects.create(
        account=account,
        status=Collection.Status.REFUSED,
        amount=60,
        currency="USD",
        started_at=AFTER_MAY,
        ended_at=AFTER_MAY,
    )
    transfer = Transfer(Decimal(10), "TX-1", NOON)
    payment = record_offline_payment(account.pk, transfer, user_id=None, now=AFTER_MAY)
    return [
        collection,
        Customer.objects.create(account=account, standing_since=NOON),
        Difference.objects.create(
            kind=Difference.Kind.INVOICE_ONLY_HERE,
            subject=str(collection.pk),
            found_at=AFTER_MAY,
            last_seen_at=AFTER_MAY,
        ),
        DunningStep.objects.all()[0],
        store(),
        Reconciliation.objects.create(
            started_at=AFTER_MAY, since=NOON, reached=NOON, ended_at=AFTER_MAY
        ),
        DunningCase.objects.create(invoice=account.invoices.all()[0], opened_at=AFTER_MAY),
        payment,
        propose_refund(payment.pk, Proposal(Decimal(1), "Twice", "r-1"), now=AFTER_MAY),
    ]


def rows_of_customers(account: Account, budget: Budget) -> list[Model]:
    """What customers keep themselves: who belongs to them, and where they have events sent."""
    member = Membership.objects.create(
        user=User.objects.create_user("member"), account=account, role=Membership.Role.OWNER
    )
    owner = services.Actor(Membership.Role.OWNER, member.user_id)
    endpoint = services.add_endpoint(account.pk, url="https://example.com/hook", now=NOON).row
    event = services.ping_endpoint(endpoint.pk, now=NOON)
    cap = BudgetCap(account=account, budget=budget, budget_name=budget.name, amount=5)
    cap.period_start, cap.period_end = account.open_period_start, account.open_period_end
    cap.capped_at = cap.latest_at = NOON
    cap.cost_at_cap = cap.latest_cost = cap.burn_rate = Decimal(6)
    cap.save()
    return [
        member,
        services.invite(
            account.pk, email="new@example.com", role=Membership.Role.VIEWER, by=owner, now=NOON
        ),
        endpoint,
        event,
        event.deliveries.all()[0],
        cap,
        AccountClosing.objects.create(account=open_account("Eve"), asked_at=NOON),
    ]


@pytest.fixture
def rows() -> dict[str, Model]:
    """A row of each page on which somebody may do something, by the page's label."""
    account = open_account()
    record_usage(account.pk, cpu_s=5_000_000)
    gift = services.Gift(
        kind=CreditKind.PREPAID, amount=Decimal(5), reason="Outage", reference="outage-1"
    )
    services.issue_api_key(account.pk, name="Key", now=NOON)
    key = issue_metering_key(name="Key", host_name="host", scopes=["samples"], now=NOON)
    # A version that nobody is on may be changed still, and so may its prices.
    free = PriceBookVersion.objects.create(
        book=PriceBook.objects.create(code="free", name="Free"), effective_from=NOON
    )
    budget = Budget.objects.create(account=account, name="Budget", amount=Decimal(5))
    made: list[Model] = [
        bill(account),
        services.grant_credit(account.pk, gift, now=NOON),
        services.request_top_up(account.pk, Decimal(5), now=NOON),
        services.subscribe(account.pk, plan_code="team", now=AFTER_MAY),
        Price.objects.create(version=free, meter="cpu", unit_price=Decimal(1)),
        free,
        free.book,
        key.row,
        budget,
        *rows_of_customers(account, budget),
        MailMessage.objects.create(
            account=account, kind="invoice_ready", subject_key="1", created_at=NOON, try_at=NOON
        ),
        waiting_correction(),
        *rows_of_payments(account),
        account,
        *(model.objects.all()[0] for model in (ApiKey, CreditEntry, DiscountRule, Plan)),
        *(model.objects.all()[0] for model in (Host, Sandbox)),
    ]
    return {row._meta.label_lower: row for row in made}
