"""What every request passes on its way in and out: its id, its limits, and what has not changed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from time import monotonic
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.middleware.http import ConditionalGetMiddleware
from django.views import defaults
from psycopg.pq import TransactionStatus
from structlog.contextvars import bound_contextvars, unbind_contextvars

from billing.api.problems import problem_response
from soulbox.logs import REQUESTS
from soulbox.metrics import metrics

Answer = Callable[[HttpRequest], HttpResponseBase]

requests = logging.getLogger(REQUESTS)

API = "/api/"
METRICS = "/metrics"
LARGEST_BODY_BYTES = 256 * 1024
READS_MORE = ("/api/v1/metering/", "/api/v1/webhook/stripe")
"""These have limits of their own, which are higher."""
STATEMENT_TIME_MS = 5000
"""No statement of a call of the API takes longer; what does is ended by the database."""
REQUEST_ID = "X-Request-ID"
WHO = ("account_id", "user_id", "operator", "host_id")
"""What whoever finds out who asks lets the log say, until the answer."""

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_TIME_SET = "soulbox_statement_time_ms"


def request_id(answer: Answer) -> Answer:
    """Give each request an id, the client's own where it sends a good one, and answer with it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get(REQUEST_ID, "")
        name = given if _ID.fullmatch(given) else uuid4().hex
        request.request_id = name  # type: ignore[attr-defined]  # read by request_id_of
        # What is logged meanwhile says for whom.
        begun = monotonic()
        with bound_contextvars(request_id=name):
            try:
                response = answer(request)
                _log(request, response, took_ms=(monotonic() - begun) * 1000)
            finally:
                unbind_contextvars(*WHO)
        response.headers[REQUEST_ID] = name
        return response

    return middleware


def _log(request: HttpRequest, response: HttpResponseBase, *, took_ms: float) -> None:
    # The route and not the address: that has tokens in it, and queries.
    match = request.resolver_match
    requests.info(
        "request",
        extra={
            "method": request.method,
            "route": match.route if match else "",
            "status": response.status_code,
            "ms": round(took_ms, 1),
        },
    )


def client_address(answer: Answer) -> Answer:
    """Behind a proxy, let REMOTE_ADDR be whom it asks for, and not the proxy.

    Else all customers would share the limits of one address. The last of X-Forwarded-For is what
    our own proxy added; whatever stands before it anybody can write.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if settings.BEHIND_PROXY and _is_address(last):
            request.META["REMOTE_ADDR"] = last
        return answer(request)

    return middleware


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def api_limits(answer: Answer) -> Answer:
    """Refuse calls of the API that are too large or hold a NUL byte, and bound their statements."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not request.path.startswith(API):
            with connection.execute_wrapper(_within(0)):
                return answer(request)
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return problem_response(request, HTTPStatus.BAD_REQUEST, "nul_byte")
        if not request.path.startswith(READS_MORE) and _length(request) > LARGEST_BODY_BYTES:
            detail = f"The body is over {LARGEST_BODY_BYTES} bytes."
            return problem_response(
                request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail
            )
        with connection.execute_wrapper(_within(STATEMENT_TIME_MS)):
            return answer(request)

    return middleware


def scrapes(answer: Answer) -> Answer:
    """Answer /metrics by whatever name: a monitor knows each process by the address it has inside.

    ALLOWED_HOSTS has the names that browsers use.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return metrics(request) if request.path == METRICS else answer(request)

    return middleware


class ConditionalAnswers(ConditionalGetMiddleware):
    """Answers of the API carry an ETag, and 304 to who has the same already."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Return the response, or 304 in its place."""
        if not request.path.startswith(API):
            return response
        return super().process_response(request, response)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a call that Django itself refuses."""
    if request.path.startswith(API):
        return problem_response(request, HTTPStatus.BAD_REQUEST, "malformed")
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a call of an address that there is not."""
    if request.path.startswith(API):
        return problem_response(request, HTTPStatus.NOT_FOUND, "not_found")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer a call that met an error of ours."""
    if request.path.startswith(API):
        return problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR, "server_error")
    return defaults.server_error(request)


def _length(request: HttpRequest) -> int:
    said = request.META.get("CONTENT_LENGTH") or "0"
    return int(said) if said.isdigit() else 0


def _within(milliseconds: int) -> Callable[..., Any]:
    """Return the wrapper that has the database end statements after so long; 0: never.

    A connection keeps it from request to request, so that it is not set each time.
    """

    def run(execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any) -> Any:
        raw = context["connection"].connection
        state = raw.info.transaction_status
        # A transaction that failed takes nothing but its end.
        if getattr(raw, _TIME_SET, 0) != milliseconds and state != TransactionStatus.INERROR:
            with raw.cursor() as cursor:
                cursor.execute(f"SET statement_timeout = {milliseconds}")
            # A transaction that is rolled back takes it back too.
            is_idle = state == TransactionStatus.IDLE and raw.autocommit
            setattr(raw, _TIME_SET, milliseconds if is_idle else -1)
        return execute(sql, params, many, context)

    return run
