"""A preview says what the invoice will say, to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import queries, services
from billing.credits import CreditKind
from billing.fees import Interval
from billing.models import Account, DiscountRule, Invoice, Plan, Price, PriceBook, PriceTier
from billing.statement import Statement
from metering.meters import GB
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    OPENED,
    open_account,
    read_streams_until,
    record_usage,
)

pytestmark = pytest.mark.django_db

MIDDLE = datetime(2026, 5, 17, 9, 38, 51, tzinfo=UTC)


def graduated(account: Account) -> PriceBook:
    """Give the account a book of its own: tiers, a package, a percentage, a minimum."""
    book = PriceBook.objects.create(code="own", name="Own", account=account)
    early = book.versions.create(effective_from=OPENED, effective_to=NOON)
    late = book.versions.create(effective_from=NOON)
    for version, factor in ((early, Decimal(1)), (late, Decimal("1.37"))):
        cpu = Price.objects.create(version=version, meter="cpu", charge="graduated")
        for position, (up_to, price) in enumerate(
            ((Decimal(100_000), "0.0001"), (Decimal(700_000), "0.00007"), (None, "0.00003"))
        ):
            PriceTier.objects.create(
                price=cpu,
                position=position,
                up_to=up_to,
                unit_price=Decimal(price) * factor,
                flat_fee=Decimal("1.25"),
            )
        Price.objects.create(
            version=version,
            meter="network_egress",
            charge="package",
            unit_price=factor,
            package_size=3,
            free_units=1,
        )
        Price.objects.create(
            version=version,
            meter="memory",
            charge="percentage",
            percent=Decimal("0.001"),
            fee_per_event=Decimal("0.333"),
            minimum=Decimal(2),
            maximum=Decimal(400),
        )
    return book


def use_much(account: Account) -> None:
    for day in (2, 9, 10, 17, 28):
        record_usage(
            account.pk,
            MAY.start + timedelta(days=day),
            cpu_s=217_013 * day,
            memory_gb_s=31_337 * day,
            egress_bytes=7 * GB + day,
            ingress_bytes=day,
        )


def on_an_own_book() -> Account:
    account = open_account()
    terms = services.AgreedTerms(fee=Decimal("777.77"), price_book=graduated(account))
    services.subscribe(account.pk, plan_code="enterprise", now=NOON, agreed=terms)
    return account


def upgraded() -> Account:
    account = open_account(plan_code="professional")
    services.choose_plan(account.pk, plan_code="team", now=MIDDLE)
    return account


def annual_with_discounts() -> Account:
    account = open_account()
    DiscountRule.objects.create(name="Annual", kind="annual", percent=Decimal("3.3"), priority=-1)
    DiscountRule.objects.create(
        name="Off",
        kind="volume",
        amount=Decimal("1.01"),
        min_amount=Decimal(2),
        scope="account",
        account=account,
    )
    services.subscribe(account.pk, plan_code="team", now=MIDDLE, interval=Interval.ANNUAL)
    return account


def committed() -> Account:
    account = open_account()
    terms = services.AgreedTerms(commitment_minimum=Decimal(9000), commitment_months=3)
    services.subscribe(account.pk, plan_code="team", now=NOON, agreed=terms)
    return account


def cancelled_in_its_trial() -> Account:
    Plan.objects.filter(code="team").update(trial_days=11)
    account = open_account(plan_code="team")
    services.cancel_subscription(account.pk, now=NOON)
    return account


def before_credits_are_granted() -> Account:
    account = open_account(plan_code="team")
    services.subscribe(account.pk, plan_code="professional", now=MIDDLE)
    return account


def figures_of(statement: Statement) -> dict[str, Any]:
    totals = statement.totals
    return {
        name: getattr(totals, name).amount
        for name in (
            "subscription_fee",
            "usage_fee",
            "discounts",
            "credits_used",
            "tax",
            "credited",
            "total_amount",
            "prepaid_used",
            "amount_due",
        )
    } | {
        "amounts": [line.amount.amount for line in statement.rating.lines],
        "shares": [share.amount for share in statement.line_discounts],
        "applied": [(d.name, d.base.amount, d.amount.amount) for d in statement.discounts],
    }


def figures_on(invoice: Invoice) -> dict[str, Any]:
    usage = invoice.lines.filter(kind="usage")
    applied = invoice.applied_discounts.filter(base="usage_fee")
    columns = set(figures_of_nothing()) - {"amounts", "shares", "applied"}
    return {name: getattr(invoice, name) for name in columns} | {
        "amounts": [line.amount for line in usage],
        "shares": [line.discount for line in usage],
        "applied": [(row.name, row.base_amount, row.amount) for row in applied],
    }


def figures_of_nothing() -> dict[str, Any]:
    return figures_of(queries.preview_period(open_account("Nobody"), MAY))


@pytest.mark.parametrize(
    "make",
    [
        open_account,
        on_an_own_book,
        upgraded,
        annual_with_discounts,
        committed,
        cancelled_in_its_trial,
        before_credits_are_granted,
    ],
)
@pytest.mark.parametrize("is_inclusive", [False, True])
def test_the_preview_is_the_draft_and_the_draft_is_the_invoice(
    make: Any,
    is_inclusive: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    account = make()
    Account.objects.filter(pk=account.pk).update(
        tax_rate=Decimal("0.1925"), tax_is_inclusive=is_inclusive
    )
    account.refresh_from_db()
    for kind, amount in ((CreditKind.PROMOTIONAL, "33.33"), (CreditKind.PREPAID, "44.44")):
        gift = services.Gift(kind, Decimal(amount), "Test", kind.value)
        services.grant_credit(account.pk, gift, now=OPENED)
    use_much(account)

    stated = queries.preview_period(account, MAY)
    preview = figures_of(stated)
    draft = services.draft_invoice(account.pk, period=MAY, now=AFTER_MAY)
    assert figures_on(draft) == preview
    read_streams_until(AFTER_MAY)
    invoice = services.finalise_invoice(draft.pk, now=AFTER_MAY)
    assert invoice is not None
    assert figures_on(invoice) == preview
    assert preview["usage_fee"] > 0
    assert sum(line.amount for line in invoice.lines.exclude(kind="usage")) == (
        invoice.subscription_fee
    )
    assert sum(preview["shares"]) == invoice.discounts
    rows = invoice.lines.filter(kind="usage")
    for line, row in zip(stated.rating.lines, rows, strict=True):
        assert sum(part.cost for part in line.parts) == line.cost
        kept = [(p.kind, p.tier, p.exact_quantity, p.unit_price) for p in row.parts.all()]
        told = [(p.kind, p.tier, p.quantity, p.unit_price) for p in line.parts]
        assert kept == (told if row.unit_price is None else [])
