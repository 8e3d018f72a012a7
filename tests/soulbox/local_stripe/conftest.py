from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stripe

from tests.local_stripe import API_KEY, LocalStripe

CACHE = Path(".soulbox/cache")


@pytest.fixture(scope="session")
def _server() -> Iterator[LocalStripe]:
    with LocalStripe(cache=CACHE) as server:
        yield server


@pytest.fixture
def local(_server: LocalStripe) -> Iterator[LocalStripe]:
    """The server, empty; a request or an answer that is not Stripe's fails the test."""
    _server.reset()
    _server.clear_violations()
    yield _server
    assert _server.violations() == []


@pytest.fixture
def client(local: LocalStripe) -> stripe.StripeClient:
    """Stripe's own client, with no retries of its own."""
    return stripe.StripeClient(API_KEY, base_addresses={"api": local.url}, max_network_retries=0)
