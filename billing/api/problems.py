"""How every refusal of the API is written: RFC 9457, with a code that does not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from psycopg.errors import QueryCanceled
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import exception_handler

MEDIA_TYPE = "application/problem+json"
PAGE = "/api/problems"
"""Where the codes are explained; a problem's `type` is this and its code."""
RETRY_AFTER_S = 5
"""When it may be over that something is silent."""

CODES: Mapping[str, str] = {
    "account_closed": "The account is closed: it can be read, and nothing in it changed.",
    "conflict": "It cannot be done as things stand. The detail says what helps.",
    "csrf_failed": "A signed-in browser has to send the CSRF token with what it writes.",
    "cursor_invalid": "The cursor is of no page of this list. Begin without one.",
    "idempotency_in_progress": "A call with this Idempotency-Key is being answered. Send it again.",
    "idempotency_key_invalid": "The Idempotency-Key is not 1 to 255 printable ASCII characters.",
    "idempotency_key_reused": "The Idempotency-Key was sent before with another call.",
    "invalid": "Fields of the call are no good; `errors` names each and the way out.",
    "invoice_unpaid": "An invoice of the account is not paid, which is in the way.",
    "key_expired": "The API key's time is over.",
    "key_of_test_mode": "The API key is for trying things out, and money is real here.",
    "key_unknown": "The key is not known or was revoked.",
    "last_owner": "The account would be left without an owner.",
    "malformed": "The call cannot be read, as where its body is no JSON.",
    "media_type_unsupported": "The body is of a media type that is not read here.",
    "method_not_allowed": "The address has no such method.",
    "no_account": "Whoever is signed in is a member of no account.",
    "not_acceptable": "No media type that is accepted can be given.",
    "not_authenticated": "The call shows neither a key nor a session.",
    "not_found": "There is no such thing in this account.",
    "nul_byte": "The address or the body holds a NUL byte, which no text here may.",
    "page_size_invalid": "The page size is not a whole number from 1 to 1,000.",
    "permission_denied": "Whoever asks may not do this.",
    "provider_silent": "Stripe is not set up or does not answer. Nothing is lost; ask again later.",
    "sandboxes_run": "Sandboxes of the account run, which is in the way.",
    "scope_missing": "The key or the member's role lacks the scope that this takes.",
    "server_error": "Something is wrong on our side. The request id helps to find it.",
    "throttled": "Too many calls. Retry-After says when the next one is taken.",
    "too_large": "The call is over a limit of size, which the detail names.",
    "took_too_long": "The answer took more than its time. Ask for less, or again later.",
    "unavailable": "A service that the answer needs is silent. Ask again after Retry-After.",
    "unknown_parameter": "The address has a parameter that is not read here.",
}
"""Every code, and what it says."""

# Where DRF's own word for it is not ours.
_RENAMED = {
    "authentication_failed": "key_unknown",
    "parse_error": "malformed",
    "unsupported_media_type": "media_type_unsupported",
    "error": "server_error",
}
_CSRF = "CSRF Failed"


class Problem(exceptions.APIException):
    """A refusal: an HTTP status, one of CODES, a sentence with the way out, and more members."""

    def __init__(self, status: int, code: str, detail: str = "", **more: Any) -> None:
        super().__init__(detail or CODES[code], code)
        self.status_code = status
        self.more = more
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            # What DRF makes the answer's Retry-After of.
            self.wait = RETRY_AFTER_S


def conflict(detail: str) -> Problem:
    """Return the problem of what cannot be done as things stand."""
    return Problem(HTTPStatus.CONFLICT, "conflict", detail)


def field_problem(field: str, detail: str, code: str = "invalid") -> exceptions.ValidationError:
    """Return the problem of one field."""
    return exceptions.ValidationError({field: [exceptions.ErrorDetail(detail, code)]})


def answer_with_problem(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the answer to an exception of a view, as DRF's EXCEPTION_HANDLER; None: it is ours."""
    exc = _as_api_error(exc)
    response = exception_handler(exc, dict(context))
    if response is None or not isinstance(exc, exceptions.APIException):
        return response
    request: Request | None = context.get("request")
    response.data = _body_of(exc, request_id_of(request))
    # DRF takes it for the media type of the answer, whatever the renderer's is.
    response.content_type = MEDIA_TYPE
    return response


def problem_response(
    request: HttpRequest, status: int, code: str, detail: str = ""
) -> JsonResponse:
    """Return the answer to a call that met no view of the API."""
    body = problem_body(status, code, detail or CODES[code], request_id_of(request))
    return JsonResponse(body, status=status, content_type=MEDIA_TYPE)


def problem_body(status: int, code: str, detail: str, request_id: str) -> dict[str, Any]:
    """Return a problem's members."""
    return {
        "type": f"{PAGE}#{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }


def request_id_of(request: Request | HttpRequest | None) -> str:
    """Return the id that the request was given at the door; empty without one."""
    return str(getattr(request, "request_id", ""))


def _as_api_error(exc: Exception) -> Exception:
    """Return the problem that one of Django's or the database's exceptions is, else itself."""
    match exc:
        case OperationalError(__cause__=QueryCanceled()):
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "took_too_long")
        case RequestDataTooBig():
            return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
        case SuspiciousOperation():
            return Problem(HTTPStatus.BAD_REQUEST, "malformed")
        case Http404():
            return exceptions.NotFound()
        case DjangoPermissionDenied():
            return exceptions.PermissionDenied()
    return exc


def _body_of(exc: exceptions.APIException, request_id: str) -> dict[str, Any]:
    if isinstance(exc, exceptions.ValidationError):
        errors = list(_errors_of(exc.detail))
        first = errors[0]
        says = f"{first['field']}: {first['detail']}" if first["field"] else first["detail"]
        body = problem_body(exc.status_code, "invalid", says, request_id)
        return {**body, "errors": errors}
    body = problem_body(exc.status_code, _code_of(exc), str(exc.detail), request_id)
    return {**body, **getattr(exc, "more", {})}


def _code_of(exc: exceptions.APIException) -> str:
    said = exc.get_codes()
    if str(exc.detail).startswith(_CSRF):
        return "csrf_failed"
    code = said if isinstance(said, str) else str(exc.default_code)
    code = _RENAMED.get(code, code)
    return code if code in CODES else "conflict"


def _errors_of(detail: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Yield each error of a ValidationError with its field, a dotted path into the body."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            # What is wrong with a whole object is said of the object.
            step = () if name == "non_field_errors" else (str(name),)
            yield from _errors_of(inner, (*path, *step))
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            is_text = isinstance(inner, str)
            yield from _errors_of(inner, path if is_text else (*path, str(index)))
    else:
        code = getattr(detail, "code", "invalid")
        yield {"field": ".".join(path), "code": str(code), "detail": str(detail)}
