"""Takes names and addresses of an account's people out of what was said with the provider."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from django.db.models import Q

from billing.models import Account
from billing.services.erasing import ERASED, Part
from payments.models import Customer, Payment, PaymentMethod, ProviderCall, WebhookEvent

_PERSONAL: Final = re.compile(
    r"^(customer_)?(name|email|phone|address|shipping|organisation)$|^receipt_email$|"
    r"^billing_details$|^customer_tax_ids$"
)


def erase_conversation(account: Account) -> Iterable[Part]:
    """Erase what calls and events say of the account's people. Safe to repeat.

    The provider itself is told of the account's new name and of no address with the next sweep of
    `tell_customers`; what it keeps of payments, it keeps by its own law.
    """
    calls = ProviderCall.objects.filter(account=account)
    yield Part("calls to Stripe: names and addresses", sum(map(_erase_call, calls.iterator())))
    customer = Customer.objects.filter(account=account, provider_id__isnull=False).first()
    named = [customer.provider_id] if customer else []
    events = WebhookEvent.objects.filter(
        Q(body__data__object__customer__in=named)
        | Q(body__data__object__id__in=named, object_type="customer")
    )
    yield Part("events of Stripe: names and addresses", sum(map(_erase_event, events.iterator())))
    methods = PaymentMethod.objects.filter(account=account).exclude(last4="")
    yield Part("payment methods: brand and last digits", methods.update(brand="", last4=""))
    kept = Payment.objects.filter(account=account).count()
    yield Part("payments, with the bank's references", kept, "the law has books kept")


def _erase_call(call: ProviderCall) -> int:
    asked, answered = without_people(call.asked), without_people(call.answered)
    if (asked, answered) == (call.asked, call.answered):
        return 0
    ProviderCall.objects.filter(pk=call.pk).update(asked=asked, answered=answered)
    return 1


def _erase_event(event: WebhookEvent) -> int:
    body = without_people(event.body)
    if body == event.body:
        return 0
    WebhookEvent.objects.filter(pk=event.pk).update(body=body)
    return 1


def without_people(said: Any) -> Any:
    """Return what was said without the values that are a person's. Those that are empty stay."""
    if isinstance(said, Mapping):
        return dict(_without(said))
    if isinstance(said, list):
        return [without_people(one) for one in said]
    return said


def _without(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in said.items():
        if _PERSONAL.match(name) and value:
            yield name, ERASED
        else:
            yield name, without_people(value)
