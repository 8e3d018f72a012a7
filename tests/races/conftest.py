"""The local Stripe, for races about money that it collects."""

from tests.payments.conftest import _local_stripe_process, local_stripe, stripe

__all__ = ["_local_stripe_process", "local_stripe", "stripe"]
