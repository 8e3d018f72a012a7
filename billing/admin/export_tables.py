"""The columns of what staff take as files. A file holds no more than the pages show."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from billing.admin.exporting import Column, amount, plain, table
from billing.models import (
    Account,
    CreditEntry,
    CreditGrant,
    DiscountRule,
    Invoice,
    InvoiceLine,
    Plan,
    Price,
    PriceTier,
    Subscription,
)

_ACCOUNT = (plain("account_id"), plain("account", "account.name"))


def _lines(invoices: QuerySet[Any]) -> QuerySet[Any]:
    lines = InvoiceLine.objects.filter(invoice__in=invoices.order_by().values("pk"))
    return lines.order_by("invoice_id", "position")


def _entries(grants: QuerySet[Any]) -> QuerySet[Any]:
    return CreditEntry.objects.filter(grant__in=grants.order_by().values("pk"))


def _tiers(prices: QuerySet[Any]) -> QuerySet[Any]:
    tiers = PriceTier.objects.filter(price__in=prices.order_by().values("pk"))
    return tiers.order_by("price_id", "position")


INVOICES = table(
    Invoice,
    (
        plain("id"),
        plain("number"),
        plain("kind"),
        plain("status"),
        *_ACCOUNT,
        plain("currency"),
        plain("period_start"),
        plain("period_end"),
        *map(
            amount,
            (
                "subscription_fee",
                "usage_fee",
                "discounts",
                "credits_used",
                "adjustments",
                "tax",
                "credited",
                "total_amount",
                "prepaid_used",
                "amount_due",
            ),
        ),
        plain("issued_on"),
        plain("due_on"),
        plain("finalised_at"),
        plain("paid_at"),
    ),
    joins=("account",),
)
INVOICE_LINES = table(
    InvoiceLine,
    (
        plain("invoice_id"),
        plain("invoice", "invoice.number"),
        plain("account_id", "invoice.account_id"),
        plain("account", "invoice.account.name"),
        plain("position"),
        plain("kind"),
        plain("description"),
        plain("meter"),
        plain("quantity"),
        plain("base_unit"),
        plain("unit"),
        plain("unit_price"),
        amount("discount", "invoice.currency"),
        amount("amount", "invoice.currency"),
        plain("currency", "invoice.currency"),
        plain("period_start"),
        plain("period_end"),
    ),
    joins=("invoice__account",),
    rows_of=_lines,
)


def _granted(name: str) -> Column:
    return amount(name, "account.currency")


CREDITS = table(
    CreditGrant,
    (
        plain("id"),
        *_ACCOUNT,
        plain("kind"),
        _granted("granted"),
        _granted("balance"),
        plain("currency", "account.currency"),
        plain("effective_at"),
        plain("expires_at"),
        plain("priority"),
        plain("reference"),
        plain("reason"),
        plain("granted_by", "granted_by.username"),
        plain("granted_at"),
    ),
    title="Credits",
    joins=("account", "granted_by"),
)
_ENTRY = (
    plain("id"),
    plain("grant_id"),
    plain("account_id", "grant.account_id"),
    plain("account", "grant.account.name"),
    plain("credit", "grant.kind"),
    plain("kind"),
    amount("amount", "grant.account.currency"),
    plain("currency", "grant.account.currency"),
    plain("invoice", "invoice.number"),
    plain("reference"),
    plain("reason"),
    plain("recorded_by", "recorded_by.username"),
    plain("recorded_at"),
)
_ENTRY_JOINS = ("grant__account", "invoice", "recorded_by")
CREDIT_ENTRIES = table(CreditEntry, _ENTRY, joins=_ENTRY_JOINS, rows_of=_entries)
LEDGER = table(CreditEntry, _ENTRY, joins=_ENTRY_JOINS)
ACCOUNTS = table(
    Account,
    (
        plain("id"),
        plain("name"),
        plain("currency"),
        plain("time_zone"),
        plain("anchor_day"),
        plain("tax_rate"),
        plain("tax_is_inclusive"),
        plain("opened_at"),
        plain("open_period_start"),
        plain("open_period_end"),
        plain("parked_reason"),
    ),
)
CONTACTS = table(
    Account,
    (plain("id"), plain("name"), plain("address"), plain("tax_id"), plain("billing_email")),
    title="Addresses, to import again",
)
SUBSCRIPTIONS = table(
    Subscription,
    (
        plain("id"),
        *_ACCOUNT,
        plain("plan", "plan.code"),
        plain("price_book", "price_book.code"),
        plain("interval"),
        amount("fee", "account.currency"),
        amount("monthly_credits", "account.currency"),
        plain("currency", "account.currency"),
        plain("started_at"),
        plain("expires_at"),
        plain("trial_ends_at"),
        amount("commitment_minimum", "account.currency"),
        plain("commitment_months"),
    ),
    joins=("account", "plan", "price_book"),
)
DISCOUNT_RULES = table(
    DiscountRule,
    (
        plain("id"),
        plain("name"),
        plain("kind"),
        plain("scope"),
        plain("plan", "plan.code"),
        plain("account", "account_id"),
        plain("currency"),
        amount("min_amount"),
        plain("min_months"),
        plain("percent"),
        amount("amount"),
        plain("priority"),
        plain("is_active"),
        plain("valid_from"),
        plain("valid_to"),
    ),
    joins=("plan",),
)
PLANS = table(
    Plan,
    (
        plain("code"),
        plain("name"),
        plain("price_book", "price_book.code"),
        plain("currency"),
        amount("monthly_fee"),
        amount("annual_fee"),
        amount("monthly_credits"),
        plain("credit_rollover_periods"),
        plain("trial_days"),
        plain("is_offered"),
        plain("stripe_price_id"),
    ),
    joins=("price_book",),
)
_PRICE_KEY = ("version.book.code", "version.effective_from")
PRICES = table(
    Price,
    (
        plain("book", _PRICE_KEY[0]),
        plain("effective_from", _PRICE_KEY[1]),
        plain("meter"),
        plain("currency"),
        plain("charge"),
        plain("unit_price"),
        plain("package_size"),
        plain("percent"),
        plain("fee_per_event"),
        amount("maximum"),
        plain("free_units"),
        amount("minimum"),
    ),
    joins=("version__book",),
)
TIERS = table(
    PriceTier,
    (
        plain("book", f"price.{_PRICE_KEY[0]}"),
        plain("effective_from", f"price.{_PRICE_KEY[1]}"),
        plain("meter", "price.meter"),
        plain("currency", "price.currency"),
        plain("charge", "price.charge"),
        plain("position"),
        plain("up_to"),
        plain("unit_price"),
        amount("flat_fee", "price.currency"),
    ),
    title="Tiers",
    joins=("price__version__book",),
    rows_of=_tiers,
)
