from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.fixtures import Settings

from tests.local_stripe import API_KEY, SECRET, LocalStripe
from tests.payments import platform_here
from tests.payments.platform_here import Platform

PATIENCE_S = 0.4
"""How long a call to the local server may take, of which an answer that is held takes longer."""


@pytest.fixture(scope="session")
def _local_stripe_process() -> Iterator[LocalStripe]:
    with LocalStripe() as server:
        yield server


@pytest.fixture
def local_stripe(_local_stripe_process: LocalStripe) -> Iterator[LocalStripe]:
    """The local Stripe, empty; a request or an answer that is not Stripe's fails the test."""
    _local_stripe_process.reset()
    _local_stripe_process.clear_violations()
    yield _local_stripe_process
    assert _local_stripe_process.violations() == []


@pytest.fixture
def stripe(local_stripe: LocalStripe, settings: Settings) -> LocalStripe:
    """The local Stripe as what payments collects through."""
    settings.STRIPE_API_KEY = API_KEY
    settings.STRIPE_API_BASE = local_stripe.url
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
    settings.STRIPE_TIMEOUT_S = PATIENCE_S
    return local_stripe


@pytest.fixture
def platform(settings: Settings) -> Iterator[Platform]:
    """A platform that says yes, and is asked through the hook."""
    platform = Platform()
    settings.PLATFORM_HOOK_URL, settings.PLATFORM_HOOK_SECRET = platform.url, platform_here.SECRET
    yield platform
    platform.stop()
