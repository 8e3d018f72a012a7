"""What a user or the clock can do to money. Other apps call these and nothing below."""

from billing.services.accounts import (
    UnknownTimeZoneError,
    is_time_zone,
    lock_account,
    open_account,
    park_account,
    unpark_account,
)
from billing.services.api_keys import (
    IssuedApiKey,
    authenticate_api_key,
    issue_api_key,
    revoke_api_key,
)
from billing.services.credits import grant_monthly_credits
from billing.services.invoices import (
    InvoiceNotReadyError,
    PeriodNotOpenError,
    UsageNotConservedError,
    UsageUnpricedError,
    draft_current_month,
    draft_invoice,
    finalise_invoice,
)
from billing.services.subscriptions import SubscriptionRefusedError, subscribe
from billing.services.sweeps import draft_due_invoices, finalise_due_invoices, grant_due_credits

__all__ = [
    "InvoiceNotReadyError",
    "IssuedApiKey",
    "PeriodNotOpenError",
    "SubscriptionRefusedError",
    "UnknownTimeZoneError",
    "UsageNotConservedError",
    "UsageUnpricedError",
    "authenticate_api_key",
    "draft_current_month",
    "draft_due_invoices",
    "draft_invoice",
    "finalise_due_invoices",
    "finalise_invoice",
    "grant_due_credits",
    "grant_monthly_credits",
    "is_time_zone",
    "issue_api_key",
    "lock_account",
    "open_account",
    "park_account",
    "revoke_api_key",
    "subscribe",
    "unpark_account",
]
