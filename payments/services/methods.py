"""What customers pay with: kept as the provider has it, card numbers never."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing.services import lock_account
from payments.models import Customer, PaymentMethod
from payments.provider import Card, CustomerMethods
from payments.services.calling import Call, make_call, next_number
from payments.services.dunning_steps import retry_on_new_cards
from payments.services.providing import provider

SET_DEFAULT = "customers.update_default"


def take_methods(customer_id: str, *, now: datetime) -> bool:
    """Bring an account's payment methods up to date with the provider's; return if it is ours.

    Safe to repeat, and to race: what counts is how they stand there now. A customer with a card
    and no default has its newest made it. What failed on another card is tried again. Raises
    ProviderError.
    """
    customer = Customer.objects.filter(provider_id=customer_id).first()
    if customer is None:
        return False
    turn = _next_turn(customer)
    found = _without_detached(provider().methods_of(customer_id))
    if found.cards and found.default_id not in {card.id for card in found.cards}:
        # The newest, as one expects who adds a first card.
        found = CustomerMethods(found.cards[0].id, found.cards)
        set_default(customer, found.default_id, now=now)
    with transaction.atomic():
        account = lock_account(customer.pk)
        if not Customer.objects.filter(pk=account.pk, methods_taken__lt=turn).update(
            methods_taken=turn
        ):
            # Whoever asked after us has answered already, and knows better.
            return True
        _keep(account.pk, found, now=now)
    retry_on_new_cards(now, account_id=account.pk)
    return True


def set_default(customer: Customer, method_id: str, *, now: datetime) -> None:
    """Have the provider charge this one from now on. Raises ProviderError."""
    customer_id = str(customer.provider_id)
    number = next_number(customer.pk, SET_DEFAULT)
    call = Call(
        f"customer-{customer.pk}-default-{number}-{method_id}",
        SET_DEFAULT,
        customer.pk,
        {"default_payment_method": method_id},
    )
    make_call(
        call,
        lambda once: provider().set_default_method(customer_id, method_id, key=once),
        now=now,
    )


def default_method(account_id: UUID) -> str:
    """Return the provider's id of what an account is charged on; empty: it has nothing."""
    found = PaymentMethod.objects.filter(account=account_id, is_default=True).first()
    return found.provider_id if found else ""


def _next_turn(customer: Customer) -> int:
    """Return the number of a question to the provider, written down before it is asked."""
    with transaction.atomic(durable=True):
        Customer.objects.filter(pk=customer.pk).update(methods_asked=F("methods_asked") + 1)
        customer.refresh_from_db(fields=["methods_asked"])
    return customer.methods_asked


def _without_detached(found: CustomerMethods) -> CustomerMethods:
    """Leave out what was removed here, and is only not detached there yet."""
    removed = set(
        PaymentMethod.objects.filter(
            provider_id__in=[card.id for card in found.cards], detach_at__isnull=False
        ).values_list("provider_id", flat=True)
    )
    return CustomerMethods(
        found.default_id, tuple(card for card in found.cards if card.id not in removed)
    )


def _keep(account_id: UUID, found: CustomerMethods, *, now: datetime) -> None:
    # One may have been removed here since the question.
    found = _without_detached(found)
    own = PaymentMethod.objects.filter(account=account_id, removed_at__isnull=True)
    ids = [card.id for card in found.cards]
    own.exclude(provider_id__in=ids).update(removed_at=now, is_default=False)
    own.exclude(provider_id=found.default_id).update(is_default=False)
    # From the oldest to the newest, which the provider lists first.
    for card in reversed(found.cards):
        _keep_card(account_id, card, is_default=card.id == found.default_id, now=now)


def _keep_card(account_id: UUID, card: Card, *, is_default: bool, now: datetime) -> None:
    kept = {
        "account_id": account_id,
        "kind": card.kind,
        "brand": card.brand,
        "last4": card.last4,
        "expires_month": card.expires_month,
        "expires_year": card.expires_year,
        "is_default": is_default,
    }
    PaymentMethod.objects.update_or_create(
        provider_id=card.id,
        defaults={**kept, "removed_at": None},
        create_defaults={**kept, "added_at": now},
    )
