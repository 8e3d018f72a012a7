"""The local Stripe, for customers' months in which money is collected by it."""

from tests.payments.conftest import _local_stripe_process, local_stripe, stripe

__all__ = ["_local_stripe_process", "local_stripe", "stripe"]
