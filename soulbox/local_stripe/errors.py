"""Stripe's errors, as a call raises them and as they are answered."""

from __future__ import annotations

from typing import Any

INVALID = "invalid_request_error"
CARD = "card_error"


class StripeError(Exception):
    """An error that Stripe would answer; `fields` are its code, param, decline_code and so on."""

    def __init__(self, status: int, kind: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.fields = fields

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the error's JSON."""
        given = {name: value for name, value in self.fields.items() if value is not None}
        if code := given.get("code"):
            given["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        given["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": {"type": self.kind, "message": self.message, **given}}


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> StripeError:
    """Return the 400 of a request that cannot be served as it is."""
    return StripeError(400, INVALID, message, code=code, param=param)


def missing(kind: str, object_id: str, *, param: str = "id") -> StripeError:
    """Return the error of an object that is not there: 404, or 400 where a parameter names it."""
    return StripeError(
        404 if param == "id" else 400,
        INVALID,
        f"No such {kind.replace('_', '')}: '{object_id}'",
        code="resource_missing",
        param=param,
    )
