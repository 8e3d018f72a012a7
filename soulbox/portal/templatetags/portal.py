"""How templates write money, and say which page they are."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from django import template
from django.http import HttpRequest

from billing.money import Money
from soulbox.portal import words

register = template.Library()


@register.filter
def money(amount: Money | Decimal, currency: str = "") -> str:
    """Return an amount as people read it; a bare one in the currency given."""
    return words.money_words(amount if isinstance(amount, Money) else Money(amount, currency))


@register.filter
def invoice_state(status: str) -> str:
    """Return what customers call an invoice's state."""
    return words.INVOICE_STATES[status]


@register.filter
def last_day(end: datetime) -> datetime:
    """Return the last moment before a period's end, for its day."""
    return end - timedelta(microseconds=1)


@register.filter
def unit(name: str) -> str:
    """Return what people call the unit of an invoice line."""
    return words.UNIT_NAMES.get(name, name.replace("_", " "))


@register.simple_tag(takes_context=True)
def nav_current(context: template.Context, *names: str) -> str:
    """Return `page` where the page is one of these, for aria-current."""
    request: HttpRequest = context["request"]
    match = request.resolver_match
    return "page" if match and match.url_name in names else "false"
