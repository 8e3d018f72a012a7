"""An account at the provider: made once, and told what changes."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import datetime, timedelta
from uuid import UUID

from billing.models import Account, Membership
from billing.services.messages import addresses_of
from payments.models import Customer, ProviderCall, WebhookEvent
from payments.provider import (
    BusyError,
    CustomerProfile,
    NoAnswerError,
    Provider,
    ProviderError,
)
from payments.services.calling import Call, is_repeatable, last_call, make_call, next_number
from payments.services.providing import is_set_up, provider
from payments.services.restorations import was_restored_after

logger = logging.getLogger(__name__)

SEARCH_LAG = timedelta(seconds=90)
"""Stripe's search may not know for a minute what was just made."""
CUSTOMERS_A_SWEEP = 200
TELL = "customers.update"


def customer_of(account: Account, *, now: datetime) -> Customer:
    """Return the account's row, which may have no id of the provider's yet. Safe to repeat."""
    customer, _ = Customer.objects.get_or_create(account=account, defaults={"standing_since": now})
    return customer


def ensure_customer(account_id: UUID, *, now: datetime) -> str:
    """Return the account's id at the provider, where it is made or told what has changed.

    Safe to repeat and to race: all ask under one key, for one customer. Raises ProviderError,
    Account.DoesNotExist.
    """
    account = Account.objects.get(pk=account_id)
    customer = customer_of(account, now=now)
    profile = profile_of(account)
    if customer.provider_id is None:
        made = _make(provider(), account, profile, now=now)
        # Whoever raced us has the same id.
        Customer.objects.filter(pk=account.pk, provider_id__isnull=True).update(
            provider_id=made, told_hash=_hash(profile), told_at=now
        )
        return made
    _tell(customer, profile, now=now)
    return customer.provider_id


def tell_customers(now: datetime) -> int:
    """Tell the provider what has changed of accounts; return how many were looked at.

    Those that were looked at longest ago come first. Safe to repeat. One that the provider refuses
    has its turn again after the others.
    """
    if not is_set_up():
        return 0
    customers = (
        Customer.objects.filter(provider_id__isnull=False)
        .select_related("account")
        .order_by("told_at", "pk")[:CUSTOMERS_A_SWEEP]
    )
    looked_at = 0
    for customer in customers:
        try:
            _tell(customer, profile_of(customer.account), now=now)
        except ProviderError as error:
            logger.warning(
                "customer was not told", exc_info=True, extra={"account_id": str(customer.pk)}
            )
            if isinstance(error, NoAnswerError | BusyError):
                # The others would not be answered either.
                break
            Customer.objects.filter(pk=customer.pk).update(told_at=now)
        looked_at += 1
    return looked_at


def account_of_event(event_id: str) -> UUID | None:
    """Return the account whose customer a stored event names, if it names one of ours."""
    event = WebhookEvent.objects.filter(event_id=event_id).first()
    if event is None:
        return None
    about = event.body["data"]["object"]
    named = about["id"] if event.object_type == "customer" else about.get("customer")
    customer_id = named["id"] if isinstance(named, dict) else named
    customers = Customer.objects.filter(provider_id=customer_id or "")
    return customers.values_list("pk", flat=True).first()


def profile_of(account: Account) -> CustomerProfile:
    """Return what the provider is told of the account."""
    owner = (
        Membership.objects.filter(account=account, role=Membership.Role.OWNER)
        .order_by("pk")
        .values_list("user_id", flat=True)
        .first()
    )
    metadata = {"account_id": str(account.pk), "organisation": account.name}
    if owner is not None:
        metadata["user_id"] = str(owner)
    addresses = addresses_of([account])[account.pk]
    return CustomerProfile(
        name=account.name, email=addresses[0] if addresses else "", metadata=metadata
    )


def _make(stripe: Provider, account: Account, profile: CustomerProfile, *, now: datetime) -> str:
    key = f"customer-{account.pk}"
    last = last_call(key)
    if last and not is_repeatable(key, now=now):
        if last.outcome == ProviderCall.Outcome.BROKEN and now - last.last_at < SEARCH_LAG:
            raise BusyError("The provider failed to make the customer. It is looked for soon.")
        if found := stripe.find_customer(account.pk):
            return found
    elif was_restored_after(account.opened_at) and (found := stripe.find_customer(account.pk)):
        return found
    call = Call(
        key, "customers.create", account.pk, {"name": profile.name, "metadata": profile.metadata}
    )
    return make_call(call, lambda once: stripe.create_customer(profile, key=once), now=now)


def _tell(customer: Customer, profile: CustomerProfile, *, now: datetime) -> None:
    told = _hash(profile)
    customer_id = customer.provider_id
    if customer.told_hash != told and customer_id:
        call = Call(
            # Changed back and forth, it is told each time.
            f"customer-{customer.pk}-told-{next_number(customer.pk, TELL)}-{told[:12]}",
            TELL,
            customer.pk,
            {"name": profile.name, "metadata": profile.metadata},
        )
        make_call(
            call,
            lambda once: provider().update_customer(customer_id, profile, key=once),
            now=now,
        )
    Customer.objects.filter(pk=customer.pk).update(told_hash=told, told_at=now)


def _hash(profile: CustomerProfile) -> str:
    told = [profile.name, profile.email, sorted(profile.metadata.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
