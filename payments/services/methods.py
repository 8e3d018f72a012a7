"""What customers pay with: kept as the provider has it, card numbers never."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.services import lock_account
from payments.models import Customer, PaymentMethod
from payments.provider import Card, CustomerMethods
from payments.services.calling import Call, make_call
from payments.services.providing import provider


def take_methods(customer_id: str, *, now: datetime) -> bool:
    """Bring an account's payment methods up to date with the provider's; return if it is ours.

    Safe to repeat: what counts is how they stand there now. A customer with a card and no default
    has its newest made it. Raises ProviderError.
    """
    customer = Customer.objects.filter(provider_id=customer_id).first()
    if customer is None:
        return False
    found = provider().methods_of(customer_id)
    if found.cards and found.default_id not in {card.id for card in found.cards}:
        found = _with_default(customer, found, now=now)
    with transaction.atomic():
        account = lock_account(customer.pk)
        own = PaymentMethod.objects.filter(account=account, removed_at__isnull=True)
        ids = [card.id for card in found.cards]
        own.exclude(provider_id__in=ids).update(removed_at=now, is_default=False)
        own.exclude(provider_id=found.default_id).update(is_default=False)
        # From the oldest to the newest, which the provider lists first.
        for card in reversed(found.cards):
            _keep(account.pk, card, is_default=card.id == found.default_id, now=now)
    return True


def default_method(account_id: UUID) -> str:
    """Return the provider's id of what an account is charged on; empty: it has nothing."""
    found = PaymentMethod.objects.filter(account=account_id, is_default=True).first()
    return found.provider_id if found else ""


def _keep(account_id: UUID, card: Card, *, is_default: bool, now: datetime) -> None:
    PaymentMethod.objects.update_or_create(
        provider_id=card.id,
        defaults={
            "account_id": account_id,
            "kind": card.kind,
            "brand": card.brand,
            "last4": card.last4,
            "expires_month": card.expires_month,
            "expires_year": card.expires_year,
            "is_default": is_default,
            "removed_at": None,
        },
        create_defaults={
            "account_id": account_id,
            "kind": card.kind,
            "brand": card.brand,
            "last4": card.last4,
            "expires_month": card.expires_month,
            "expires_year": card.expires_year,
            "is_default": is_default,
            "added_at": now,
        },
    )


def _with_default(customer: Customer, found: CustomerMethods, *, now: datetime) -> CustomerMethods:
    """Make the newest card the default, as one expects who adds a first card."""
    newest = found.cards[0].id
    customer_id = str(customer.provider_id)
    call = Call(
        f"customer-{customer.pk}-default-{newest}-{now:%Y%m%d%H%M}",
        "customers.update",
        customer.pk,
        {"default_payment_method": newest},
    )
    make_call(
        call,
        lambda once: provider().set_default_method(customer_id, newest, key=once),
        now=now,
    )
    return CustomerMethods(newest, found.cards)
