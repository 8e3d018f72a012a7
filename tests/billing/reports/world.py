"""Accounts with a May behind them, for tests of the reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing import services
from billing.credits import CreditKind
from billing.models import Account
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    OPENED,
    bill,
    open_account,
    read_streams_until,
    record_usage,
)

MID_JUNE = datetime(2026, 6, 15, 12, tzinfo=UTC)


def give(account: Account, kind: CreditKind, amount: str) -> None:
    gift = services.Gift(kind, Decimal(amount), reason="a present", reference=f"{kind} {amount}")
    services.grant_credit(account.pk, gift, now=OPENED)


def tell(account: Account, **columns: object) -> None:
    Account.objects.filter(pk=account.pk).update(**columns)


def bill_a_busy_may() -> dict[str, Account]:
    """Bill accounts whose invoices have a part of every kind, and leave some unbilled."""
    accounts = {
        "plain": open_account("Ada"),
        "discounted": open_account("Bob", plan_code="team"),
        "taxed": open_account("=cmd()", plan_code="professional"),
        "inclusive": open_account("Dot"),
        "void": open_account("Eve"),
        "reissued": open_account("Fay"),
        "upgraded": open_account("Gus", plan_code="professional"),
        "open": open_account("Hal"),
    }
    tell(accounts["taxed"], tax_rate=Decimal("0.19"))
    tell(accounts["inclusive"], tax_rate=Decimal("0.07"), tax_is_inclusive=True)
    give(accounts["discounted"], CreditKind.PROMOTIONAL, "7.77")
    give(accounts["taxed"], CreditKind.PREPAID, "50")
    upgraded_at = NOON + timedelta(days=3, seconds=7)
    services.subscribe(accounts["upgraded"].pk, plan_code="team", now=upgraded_at)
    for number, (name, account) in enumerate(accounts.items(), 1):
        record_usage(
            account.pk,
            NOON + timedelta(minutes=15 * number),
            cpu_s=(60_000_000 if name == "discounted" else 1_000_003) * number,
            memory_gb_s=777_777 * number,
            egress_bytes=12_345_678_901 * number,
            disk_write_bytes=5,
        )
        if name != "open":
            invoice = bill(account)
        if name == "void":
            services.void_invoice(invoice.pk, because=services.Because("A mistake"), now=AFTER_MAY)
        if name == "reissued":
            services.reissue_invoice(
                invoice.pk, because=services.Because("A mistake"), now=AFTER_MAY
            )
    # June is open, and another month.
    record_usage(accounts["plain"].pk, MID_JUNE, cpu_s=1000)
    read_streams_until(JUNE.end)
    return accounts


__all__ = ["AFTER_MAY", "JUNE", "MAY", "MID_JUNE", "bill_a_busy_may", "give", "tell"]
