"""The tables of billing, one noun a module. Django looks for them here."""

from billing.models.accounts import Account, ApiKey, Membership
from billing.models.credits import CreditEntry, CreditGrant
from billing.models.invoices import Invoice, InvoiceLine, InvoiceSeries
from billing.models.plans import Plan, Subscription
from billing.models.prices import Price, PriceBook, PriceBookVersion

__all__ = [
    "Account",
    "ApiKey",
    "CreditEntry",
    "CreditGrant",
    "Invoice",
    "InvoiceLine",
    "InvoiceSeries",
    "Membership",
    "Plan",
    "Price",
    "PriceBook",
    "PriceBookVersion",
    "Subscription",
]
