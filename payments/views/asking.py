"""What every view has that asks the provider on an account's behalf."""

from __future__ import annotations

import logging

from rest_framework import status
from rest_framework.exceptions import APIException
from rest_framework.response import Response

from billing.api.idempotency import CLAIM
from billing.api.views import AccountView
from payments.provider import BusyError, NoAnswerError, NotSetUpError, ProviderError

logger = logging.getLogger(__name__)


class ProviderSilentError(APIException):
    """The provider is not set up, or does not answer: asked again later it may work."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Stripe does not answer. Nothing is lost: ask again in a minute."
    default_code = "provider_silent"


class ConflictError(APIException):
    """It cannot be done as things stand; the detail says what helps."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class ProviderView(AccountView):
    """A view whose service asks the provider. What goes wrong there is answered in words."""

    # What is to be asked is committed first.
    idempotency = CLAIM

    def handle_exception(self, exc: Exception) -> Response:
        """Return the answer to an error; the provider's are turned into HTTP's."""
        if isinstance(exc, ProviderError):
            exc = _as_http(exc)
        return super().handle_exception(exc)


def _as_http(error: ProviderError) -> APIException:
    if isinstance(error, NotSetUpError):
        return ProviderSilentError(str(error))
    if isinstance(error, NoAnswerError | BusyError):
        logger.warning("the provider did not answer a customer: %s", error)
        return ProviderSilentError()
    return ConflictError(f"Stripe refuses: {error}")
