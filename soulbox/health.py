"""Whether a web process lives (`/health`), and whether what it needs answers (`/ready`).

Both are answered before anything else looks at the request: who starts and routes to containers
asks by their own addresses and without TLS, and an answer must rest on nothing but what it tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from threading import Event, Lock
from time import monotonic
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from redis.backoff import NoBackoff
from redis.retry import Retry

Answer = Callable[[HttpRequest], HttpResponseBase]

PART_TIMEOUT_S = 1.0
"""So long one Redis may take to answer."""
KEPT_S = 1.0
"""So long an answer of /ready is given again: asking often costs nothing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """How one thing that the process uses answered. `is_needed`: without it nothing is served."""

    is_good: bool
    is_needed: bool
    took_ms: float
    problem: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """The part as /ready shows it."""
        told = {"ok": self.is_good, "needed": self.is_needed, "ms": round(self.took_ms, 1)}
        return told | ({"problem": self.problem} if self.problem else {})


class NotReadyError(Exception):
    """A part is not as it has to be; the message says how."""


def probes(answer: Answer) -> Answer:
    """Answer /health and /ready."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.path not in {"/health", "/ready"} or request.method not in {"GET", "HEAD"}:
            return answer(request)
        response = HttpResponse("ok", "text/plain") if request.path == "/health" else _ready()
        response.headers["Cache-Control"] = "no-store"
        return response

    return middleware


def look_at_parts() -> dict[str, Part]:
    """Return how each part answers, by name. Takes a few ms; PART_TIMEOUT_S by a silent Redis."""
    return {name: _look(look, is_needed=name != "cache") for name, look in _PARTS.items()}


def pending_migrations() -> list[str]:
    """Return the names of migrations that wait to be applied. Raises django.db.Error."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [str(migration) for migration, _backwards in plan]


class _Kept:
    """The newest look at the parts, of all threads of this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._parts: Mapping[str, Part] = {}
        self._until = 0.0

    def parts(self) -> Mapping[str, Part]:
        """Return it, or look anew where it is old. One thread looks, and the others wait for it."""
        with self._lock:
            if monotonic() >= self._until:
                self._parts = look_at_parts()
                self._until = monotonic() + KEPT_S
            return self._parts

    def forget(self) -> None:
        """Look anew the next time."""
        with self._lock:
            self._until = 0.0


kept = _Kept()
migrated = Event()


def _ready() -> JsonResponse:
    parts = kept.parts()
    is_ready = all(part.is_good for part in parts.values() if part.is_needed)
    return JsonResponse(
        {"ready": is_ready, "parts": {name: part.told for name, part in parts.items()}},
        status=HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


def _look(look: Callable[[], None], *, is_needed: bool) -> Part:
    begun = monotonic()
    problem = ""
    try:
        look()
    except NotReadyError as error:
        problem = str(error)
    except (Error, redis.RedisError):
        # What it says may hold addresses and names, and anybody may read the answer.
        logger.warning("a part does not answer", exc_info=True)
        problem = "It does not answer."
    return Part(not problem, is_needed, (monotonic() - begun) * 1000, problem)


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _migrations() -> None:
    # Once all are applied, they stay so for as long as this process runs.
    if migrated.is_set():
        return
    if waiting := pending_migrations():
        raise NotReadyError(f"{len(waiting)} migrations wait: manage.py migrate")
    migrated.set()


def _ping(setting: str) -> None:
    _redis_at(getattr(settings, setting)).ping()


@cache
def _redis_at(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=PART_TIMEOUT_S,
        socket_connect_timeout=PART_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


_PARTS: Mapping[str, Callable[[], None]] = {
    "database": _database,
    "migrations": _migrations,
    "broker": lambda: _ping("REDIS_URL"),
    "streams": lambda: _ping("STREAM_REDIS_URL"),
    # Without it answers are slower, and nothing else.
    "cache": lambda: _ping("CACHE_REDIS_URL"),
}
