"""The SDK's errors, turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import stripe

from payments.provider import (
    BrokenError,
    BusyError,
    DeclinedError,
    NoAnswerError,
    NotFoundError,
    RefusedError,
)

_NOT_FOUND = 404
_SERVER_ERROR = 500


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    try:
        yield
    except stripe.CardError as error:
        raise _declined(error) from error
    except stripe.RateLimitError as error:
        raise BusyError(str(error)) from error
    except stripe.IdempotencyError as error:
        # The key is another request's: a mistake of ours, and nothing was done.
        raise RefusedError(str(error), code="idempotency_error") from error
    except stripe.InvalidRequestError as error:
        if error.code == "resource_missing" and error.http_status == _NOT_FOUND:
            raise NotFoundError(str(error)) from error
        raise RefusedError(str(error), code=error.code or "") from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        # The key is wrong or may not do it: nothing of the customer's; later it may be right.
        raise BusyError(str(error)) from error
    except stripe.APIConnectionError as error:
        raise NoAnswerError(str(error)) from error
    except stripe.StripeError as error:
        if error.http_status and error.http_status >= _SERVER_ERROR:
            raise BrokenError(str(error)) from error
        # 409: the same request is still under way.
        raise NoAnswerError(str(error)) from error


def _declined(error: stripe.CardError) -> DeclinedError:
    told = error.error.to_dict() if error.error else {}
    code = error.code or ""
    decline_code = told.get("decline_code") or ""
    return DeclinedError(
        error.user_message or str(error),
        code=code,
        decline_code=decline_code,
        needs_customer="authentication_required" in {code, decline_code}
        or code == "invoice_payment_intent_requires_action",
    )
