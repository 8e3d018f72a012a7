"""`Idempotency-Key` on a POST: the call is done once, however often it is sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.db import transaction
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.problems import Problem
from billing.services.idempotency import (
    Answer,
    InProgressError,
    KeyReusedError,
    begin_call,
    drop_call,
    keep_answer,
)

if TYPE_CHECKING:
    from billing.api.views import AccountView

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
TRANSACTION, CLAIM = "transaction", "claim"

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Handler = Callable[..., Response]


def idempotent(handler: Handler) -> Handler:
    """Return the POST handler that answers a call with a known key from what it was answered."""

    @wraps(handler)
    def post(view: AccountView, request: Request, *args: Any, **path: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **path)
        if not _KEY.fullmatch(key):
            raise Problem(HTTPStatus.BAD_REQUEST, "idempotency_key_invalid")
        do = _in_transaction if view.idempotency == TRANSACTION else _by_claim
        return do(view, key, request, lambda: handler(view, request, *args, **path))

    return post


def _in_transaction(
    view: AccountView, key: str, request: Request, do: Callable[[], Response]
) -> Response:
    """Do the call in one transaction with the record of it: both are kept, or neither."""
    with transaction.atomic():
        if known := _begin(view, key, request):
            return _replay(known)
        response = do()
        keep_answer(view.account_id, key, _answer(view, response))
    return response


def _by_claim(
    view: AccountView, key: str, request: Request, do: Callable[[], Response]
) -> Response:
    """Do the call under a claim, for views that commit before they ask others."""
    if known := _begin(view, key, request):
        return _replay(known)
    try:
        response = do()
    except Exception:
        # It may be mended and sent again; what was done meanwhile is safe to repeat.
        drop_call(view.account_id, key)
        raise
    keep_answer(view.account_id, key, _answer(view, response))
    return response


def _begin(view: AccountView, key: str, request: Request) -> Answer | None:
    try:
        return begin_call(view.account_id, key, _fingerprint(request), now=datetime.now(UTC))
    except KeyReusedError:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused") from None
    except InProgressError:
        raise Problem(HTTPStatus.CONFLICT, "idempotency_in_progress") from None


def _fingerprint(request: Request) -> str:
    """Return the SHA-256 of what is asked, hexadecimal."""
    asked = request._request  # noqa: SLF001 - DRF's way to Django's request and its raw body
    parts = (str(asked.method).encode(), asked.get_full_path().encode(), asked.body)
    return hashlib.sha256(b"\x00".join(parts)).hexdigest()


def _answer(view: AccountView, response: Response) -> Answer:
    data = json.loads(JSONRenderer().render(response.data) or b"null")
    if isinstance(data, dict):
        # A secret is shown once, and kept nowhere.
        data.update(dict.fromkeys(data.keys() & set(view.secrets_once)))
    return Answer(response.status_code, data)


def _replay(known: Answer) -> Response:
    return Response(known.data, known.status, headers={REPLAYED: "true"})
