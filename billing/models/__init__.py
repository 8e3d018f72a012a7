"""The tables of billing, one noun a module. Django looks for them here."""

from billing.models.accounts import Account, ApiKey
from billing.models.audit import AuditEntry, AuditTrail
from billing.models.caps import BudgetCap, BudgetState
from billing.models.closing import AccountClosing
from billing.models.corrections import BilledLateUsage, InvoiceAdjustment, UnbilledLateUsage
from billing.models.credit_notes import (
    Correction,
    CorrectionLine,
    CreditNote,
    CreditNoteLine,
)
from billing.models.credits import CreditEntry, CreditGrant, TopUp
from billing.models.desk import DeskCoverage, DeskDay, DeskRunning, DeskSlice
from billing.models.discounts import DiscountRule
from billing.models.evidence import InvoiceEvidence
from billing.models.idempotency import IdempotentCall
from billing.models.invoice_files import InvoiceDays, InvoiceFile, InvoiceMismatch
from billing.models.invoice_lines import (
    InvoiceDiscount,
    InvoiceLine,
    InvoiceLinePart,
    UnpricedUsage,
)
from billing.models.invoices import Invoice, InvoiceTransition, NumberSeries
from billing.models.members import Invitation, Membership
from billing.models.messages import Budget, MailCursor, MailMessage
from billing.models.monitoring import FailureCount, InvoicedAmount
from billing.models.operators import OperatorKey
from billing.models.outgoing import Delivery, Event, EventType, WebhookEndpoint
from billing.models.plans import Plan, Subscription
from billing.models.prices import Price, PriceBook, PriceBookVersion, PriceTier
from billing.models.provider_periods import ProviderPeriod

__all__ = [
    "Account",
    "AccountClosing",
    "ApiKey",
    "AuditEntry",
    "AuditTrail",
    "BilledLateUsage",
    "Budget",
    "BudgetCap",
    "BudgetState",
    "Correction",
    "CorrectionLine",
    "CreditEntry",
    "CreditGrant",
    "CreditNote",
    "CreditNoteLine",
    "Delivery",
    "DeskCoverage",
    "DeskDay",
    "DeskRunning",
    "DeskSlice",
    "DiscountRule",
    "Event",
    "EventType",
    "FailureCount",
    "IdempotentCall",
    "Invitation",
    "Invoice",
    "InvoiceAdjustment",
    "InvoiceDays",
    "InvoiceDiscount",
    "InvoiceEvidence",
    "InvoiceFile",
    "InvoiceLine",
    "InvoiceLinePart",
    "InvoiceMismatch",
    "InvoiceTransition",
    "InvoicedAmount",
    "MailCursor",
    "MailMessage",
    "Membership",
    "NumberSeries",
    "OperatorKey",
    "Plan",
    "Price",
    "PriceBook",
    "PriceBookVersion",
    "PriceTier",
    "ProviderPeriod",
    "Subscription",
    "TopUp",
    "UnbilledLateUsage",
    "UnpricedUsage",
    "WebhookEndpoint",
]
