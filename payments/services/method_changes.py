"""What customers do with their payment methods: add, choose the default, remove."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import transaction

from billing.services import lock_account
from payments.models import Customer, PaymentMethod, ProviderCall
from payments.owed import owes
from payments.provider import (
    NotFoundError,
    NotSetUpError,
    ProviderError,
    RefusedError,
    SetupIntent,
)
from payments.services.calling import Call, make_call, next_number
from payments.services.customers import ensure_customer
from payments.services.methods import set_default, take_methods
from payments.services.providing import is_set_up, provider

logger = logging.getLogger(__name__)

SETUPS_AN_HOUR = 20
"""Of an account: who tries stolen cards asks for hundreds."""
MOST_METHODS = 50
"""Of an account; the provider lists 100."""
LEASE = timedelta(seconds=45)
DETACH_AGAIN = timedelta(minutes=5)
DETACHED_A_SWEEP = 100
CREATE_SETUP = "setup_intents.create"


class MethodRefusedError(Exception):
    """The payment methods stay as they are; the message says why, and what helps."""


class TooManySetupsError(Exception):
    """The account began to add payment methods too often in the last hour."""


class NoSuchMethodError(Exception):
    """The account has no such payment method, or setup intent."""


def begin_adding(account_id: UUID, *, now: datetime) -> SetupIntent:
    """Begin adding a payment method; return what the customer's browser confirms it with.

    Asked twice at once, or again because no answer came, there is one setup intent. Raises
    MethodRefusedError, TooManySetupsError, ProviderError.
    """
    _refuse_too_many(account_id, now=now)
    customer_id = ensure_customer(account_id, now=now)
    call = Call(
        f"customer-{account_id}-setup-{next_number(account_id, CREATE_SETUP)}",
        CREATE_SETUP,
        account_id,
        {"customer": customer_id},
    )
    return make_call(
        call, lambda once: provider().create_setup_intent(customer_id, key=once), now=now
    )


def finish_adding(account_id: UUID, setup_intent_id: str, *, now: datetime) -> None:
    """Take over what a customer has confirmed, without waiting for the provider to tell.

    Safe to repeat. Raises NoSuchMethodError when it is not the account's, ProviderError.
    """
    customer = Customer.objects.filter(pk=account_id, provider_id__isnull=False).first()
    try:
        owner = provider().setup_customer(setup_intent_id)
    except NotFoundError:
        owner = ""
    if customer is None or customer.provider_id != owner:
        raise NoSuchMethodError
    take_methods(owner, now=now)


def portal_url(account_id: UUID, *, return_url: str, now: datetime) -> str:
    """Return the address of the provider's page for payment methods, which soon expires.

    It leads back to `return_url`, or without one to PAYMENTS_RETURN_URL. Raises
    MethodRefusedError, ProviderError.
    """
    back = return_url or settings.PAYMENTS_RETURN_URL
    if not back:
        raise NotSetUpError(
            "PAYMENTS_RETURN_URL is not set, so the portal could not lead back. Set it, or "
            "PUBLIC_URL."
        )
    if not leads_back(back):
        raise MethodRefusedError("return_url leads elsewhere. Use one that this site serves.")
    customer_id = ensure_customer(account_id, now=now)
    return provider().create_portal_session(customer_id, return_url=back)


def leads_back(url: str) -> bool:
    """Return whether an address is of the same scheme, host and port as PAYMENTS_RETURN_URL."""
    own = _origin(settings.PAYMENTS_RETURN_URL)
    return own is not None and _origin(url) == own


def choose_default(account_id: UUID, method_id: int, *, now: datetime) -> PaymentMethod:
    """Have an account charged on this method from now on. Safe to repeat.

    Raises NoSuchMethodError, MethodRefusedError, ProviderError.
    """
    method = _method_of(account_id, method_id)
    customer = Customer.objects.get(pk=account_id)
    try:
        set_default(customer, method.provider_id, now=now)
    except (NotFoundError, RefusedError) as error:
        take_methods(str(customer.provider_id), now=now)
        raise MethodRefusedError(f"The provider refuses it: {error}") from error
    take_methods(str(customer.provider_id), now=now)
    return _method_of(account_id, method_id)


def remove_method(account_id: UUID, method_id: int, *, now: datetime) -> None:
    """Remove a payment method: at once here, and as soon as it answers at the provider.

    Of several the newest that is left becomes the default. Raises NoSuchMethodError,
    MethodRefusedError for the only one of an account that owes, NotSetUpError.
    """
    # Who has no such method learns that first.
    _method_of(account_id, method_id)
    if not is_set_up():
        provider()
    with transaction.atomic(durable=True):
        lock_account(account_id)
        method = _method_of(account_id, method_id)
        others = PaymentMethod.objects.filter(account=account_id, removed_at__isnull=True)
        if not others.exclude(pk=method.pk).exists() and owes(account_id):
            raise MethodRefusedError(
                "It is the only payment method, and an invoice is not paid. Pay it, or add "
                "another payment method first."
            )
        PaymentMethod.objects.filter(pk=method.pk).update(
            removed_at=now, is_default=False, detach_at=now + LEASE
        )
    try:
        _detach(method, now=now)
    except ProviderError as error:
        _detach_later(method, error, now=now)


def detach_removed(now: datetime) -> int:
    """Detach at the provider what was removed here, where it did not answer; return how many.

    Safe to repeat, and at once with others.
    """
    if not is_set_up():
        return 0
    waiting = PaymentMethod.objects.filter(detach_at__lte=now).order_by("detach_at")
    detached = 0
    for method in waiting[:DETACHED_A_SWEEP]:
        claimed = PaymentMethod.objects.filter(pk=method.pk, detach_at=method.detach_at)
        if not claimed.update(detach_at=now + LEASE):
            continue
        try:
            _detach(method, now=now)
        except ProviderError as error:
            _detach_later(method, error, now=now)
        else:
            detached += 1
    return detached


def _detach(method: PaymentMethod, *, now: datetime) -> None:
    call = Call(
        f"method-{method.pk}-detach",
        "payment_methods.detach",
        method.account_id,
        {"payment_method": method.provider_id},
    )
    try:
        make_call(
            call, lambda once: provider().detach_method(method.provider_id, key=once), now=now
        )
    except NotFoundError:
        pass
    except RefusedError:
        if provider().method(method.provider_id).customer_id:
            raise
    PaymentMethod.objects.filter(pk=method.pk).update(detach_at=None)
    take_methods(str(Customer.objects.get(pk=method.account_id).provider_id), now=now)


def _detach_later(method: PaymentMethod, error: ProviderError, *, now: datetime) -> None:
    logger.warning(
        "payment method is not detached yet: %s",
        error,
        extra={"account_id": str(method.account_id), "method_id": method.provider_id},
    )
    PaymentMethod.objects.filter(pk=method.pk, detach_at__isnull=False).update(
        detach_at=now + DETACH_AGAIN
    )


def _method_of(account_id: UUID, method_id: int) -> PaymentMethod:
    found = PaymentMethod.objects.filter(
        pk=method_id, account=account_id, removed_at__isnull=True
    ).first()
    if found is None:
        raise NoSuchMethodError
    return found


def _refuse_too_many(account_id: UUID, *, now: datetime) -> None:
    kept = PaymentMethod.objects.filter(account=account_id, removed_at__isnull=True)
    if kept.count() >= MOST_METHODS:
        raise MethodRefusedError(f"There are {MOST_METHODS} payment methods. Remove one first.")
    begun = ProviderCall.objects.filter(
        account=account_id, operation=CREATE_SETUP, first_at__gt=now - timedelta(hours=1)
    )
    if begun.count() >= SETUPS_AN_HOUR:
        raise TooManySetupsError


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a web address; None where it is none, or hides another."""
    if any(character.isspace() or character == "\\" for character in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port
