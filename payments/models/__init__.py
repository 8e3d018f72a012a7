from payments.models.audit import AUDITED
from payments.models.collecting import (
    LIVE_ATTEMPT,
    LIVE_COLLECTION,
    Collection,
    CollectionPart,
    PaymentAttempt,
    ProviderCall,
)
from payments.models.customers import Customer, PaymentMethod
from payments.models.differences import Difference, Reconciliation
from payments.models.dunning import DunningCase, DunningStep, PlatformRequest
from payments.models.events import WebhookEvent
from payments.models.money import Allocation, Dispute, Payment, Refund
from payments.models.restorations import Restoration
from payments.models.subscriptions import FeeSubscription

__all__ = [
    "AUDITED",
    "LIVE_ATTEMPT",
    "LIVE_COLLECTION",
    "Allocation",
    "Collection",
    "CollectionPart",
    "Customer",
    "Difference",
    "Dispute",
    "DunningCase",
    "DunningStep",
    "FeeSubscription",
    "Payment",
    "PaymentAttempt",
    "PaymentMethod",
    "PlatformRequest",
    "ProviderCall",
    "Reconciliation",
    "Refund",
    "Restoration",
    "WebhookEvent",
]
