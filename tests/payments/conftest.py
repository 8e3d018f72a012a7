from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local_stripe import LocalStripe


@pytest.fixture(scope="session")
def _local_stripe_process() -> Iterator[LocalStripe]:
    with LocalStripe() as server:
        yield server


@pytest.fixture
def local_stripe(_local_stripe_process: LocalStripe) -> Iterator[LocalStripe]:
    """The local Stripe, empty; a request or an answer that is not Stripe's fails the test."""
    _local_stripe_process.reset()
    yield _local_stripe_process
    assert _local_stripe_process.violations() == []
