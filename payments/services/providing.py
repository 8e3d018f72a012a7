"""Which payment provider there is to ask."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from payments.provider import NotSetUpError, Provider
from payments.stripe.client import Stripe, StripeSettings


def provider() -> Provider:
    """Return the payment provider. Raises NotSetUpError, naming the setting that is missing."""
    if not settings.STRIPE_API_KEY:
        raise NotSetUpError(
            "STRIPE_API_KEY is not set, so nothing is collected. Set it to a key of Stripe; "
            "docs/payments.md says how to go live."
        )
    return _stripe(
        StripeSettings(
            api_key=settings.STRIPE_API_KEY,
            api_base=settings.STRIPE_API_BASE,
            timeout_s=settings.STRIPE_TIMEOUT_S,
        )
    )


def is_set_up() -> bool:
    """Return whether there is a provider to ask."""
    return bool(settings.STRIPE_API_KEY)


@lru_cache(maxsize=4)
def _stripe(stripe: StripeSettings) -> Stripe:
    return Stripe(stripe)
