"""What every view has that asks the provider on an account's behalf."""

from __future__ import annotations

import logging
from uuid import UUID

from rest_framework import status
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.models import ApiKey
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


class ProviderView(APIView):
    """A view whose service asks the provider. What goes wrong there is answered in words."""

    def handle_exception(self, exc: Exception) -> Response:
        """Return the answer to an error; the provider's are turned into HTTP's."""
        if isinstance(exc, ProviderError):
            exc = _as_http(exc)
        return super().handle_exception(exc)


def account_of(request: Request) -> UUID:
    """Return the account of the request's key. Raises NotAuthenticated."""
    if not isinstance(request.auth, ApiKey):
        raise NotAuthenticated
    return request.auth.account_id


def _as_http(error: ProviderError) -> APIException:
    if isinstance(error, NotSetUpError):
        return ProviderSilentError(str(error))
    if isinstance(error, NoAnswerError | BusyError):
        logger.warning("the provider did not answer a customer: %s", error)
        return ProviderSilentError()
    return ConflictError(f"Stripe refuses: {error}")
