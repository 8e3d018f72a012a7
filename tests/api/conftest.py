"""The clock of billing's tests, for the API's."""

from tests.billing.conftest import set_clock

__all__ = ["set_clock"]
