"""What services raise when a person should say it differently; their messages say how."""

from __future__ import annotations

from billing import services
from billing.credit_notes import CreditNoteRefusedError
from billing.history import UsageNotKeptError
from billing.lifecycle import TransitionRefusedError
from billing.services.differences import NotPricedError

_refusals: list[type[Exception]] = [
    services.AccountRefusedError,
    services.ApiKeyRefusedError,
    services.ClosingRefusedError,
    services.CorrectionRefusedError,
    services.CreditRefusedError,
    services.MemberRefusedError,
    services.MessageRefusedError,
    services.NotConservedError,
    services.PriceBookRefusedError,
    services.SafetyBoundError,
    services.SubscriptionRefusedError,
    services.TopUpRefusedError,
    services.UsageUnpricedError,
    services.WebhookRefusedError,
    CreditNoteRefusedError,
    NotPricedError,
    TransitionRefusedError,
    UsageNotKeptError,
]


def refusals() -> tuple[type[Exception], ...]:
    """Return the errors that a page shows on its form, with all that was typed."""
    return tuple(_refusals)


def register_refusals(*errors: type[Exception]) -> None:
    """Let pages show what the services of another app raise, too."""
    _refusals.extend(error for error in errors if error not in _refusals)
