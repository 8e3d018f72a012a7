"""What each web process counts of itself: requests, statements and looks into the cache.

django-prometheus counts them. Workers of one gunicorn write into one folder (soulbox/serving.py),
and what is told is the sum of all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from django.core.cache.backends.redis import RedisCache
from django.http import HttpRequest, HttpResponseBase
from django_prometheus.cache.metrics import (
    django_cache_get_fail_total,
    django_cache_get_total,
    django_cache_hits_total,
    django_cache_misses_total,
)
from django_prometheus.middleware import PrometheusAfterMiddleware
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from soulbox.serving import COUNTS

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
_BACKEND = "redis"
_MISSING = object()


class OfProcesses(Collector):
    """The counts of all workers of this gunicorn; elsewhere those of this process."""

    def collect(self) -> Iterator[Metric]:
        """Yield what django-prometheus counted, and nothing about the process that answers."""
        several = bool(os.environ.get(COUNTS))
        counted = MultiProcessCollector(CollectorRegistry()) if several else REGISTRY
        for family in counted.collect():
            if family.name.startswith("django_"):
                yield family


class CountRequests(PrometheusAfterMiddleware):  # type: ignore[misc] # it has no types
    """Count requests, under a bounded number of labels: anybody may make up methods."""

    def label_metric(
        self,
        metric: Any,
        request: HttpRequest,
        response: HttpResponseBase | None = None,
        **labels: str,
    ) -> Any:
        """Return the metric for these labels."""
        if "method" in labels and labels["method"] not in METHODS:
            labels["method"] = OTHER_METHOD
        return super().label_metric(metric, request, response, **labels)


class CountedCache(RedisCache):
    """Django's own cache in Redis, with its looks counted.

    django-prometheus' own needs django-redis beside it, which nothing else here does.
    """

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return what is kept under the key, or the default."""
        django_cache_get_total.labels(backend=_BACKEND).inc()
        try:
            found = super().get(key, default=_MISSING, version=version)
        except Exception:
            django_cache_get_fail_total.labels(backend=_BACKEND).inc()
            raise
        if found is _MISSING:
            django_cache_misses_total.labels(backend=_BACKEND).inc()
            return default
        django_cache_hits_total.labels(backend=_BACKEND).inc()
        return found
