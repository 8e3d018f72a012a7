"""The stack, on rows of its own, that nobody else looks at while it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
import redis
from django.conf import settings
from django.test import override_settings
from pytest_django.plugin import DjangoDbBlocker

from billing.services import issue_api_key
from metering.models import Host
from metering.partitions import make_partitions
from metering.services import register_host
from tests.conftest import wipe_committed_rows
from tests.live import stack as live
from tests.live.breaking import Breakage, Prepared
from tests.live.customers import Visitor
from tests.live.watching import Watch
from tests.local_stripe import API_KEY, LocalStripe
from tests.lookalike import LookAlike

HOSTS = UUID(int=1), UUID(int=2)
PROGRAMS = ("prometheus", "prometheus-alertmanager")
# In the order in which they are seen: what is so until it was done once,
AT_FIRST = ("FiguresOld",)
# what the running service finds by itself,
FOUND = (
    "AccountParked",
    "InvoiceGenerationFailed",
    "ConservationBroken",
    "UnderBilling",
    "HighPaymentFailureRate",
    "PaymentUnknown",
    "WebhookFailed",
    "StripeDifference",
    "BatchesLost",
    "CoverageLow",
    "DefaultPartition",
    "HighUsageSpike",
)
# and in what it counts each minute,
COUNTED = ("SandboxesUnsampled", "SummariesLate")
# what shows when processes stand still or are gone,
HELD = (
    "MeteringStopped",
    "StreamLag",
    "PushLag",
    "BillingLate",
    "CollectionLate",
    "WebhookLag",
    "CanaryMissing",
    "QueueLong",
)
# and what hides others.
WITHOUT_A_RIGHT = ("MetricsMissing",)
WITHOUT_REDIS = ("StreamsDown", "BrokerDown")
AT_LAST = ("WebDown",)
HIDING = (*WITHOUT_A_RIGHT, *WITHOUT_REDIS, *AT_LAST)


def wipe() -> None:
    """Leave no rows, tasks, samples or kept answers of anybody else."""
    wipe_committed_rows()
    for url in (settings.REDIS_URL, settings.STREAM_REDIS_URL, settings.CACHE_REDIS_URL):
        with redis.Redis.from_url(url) as server:
            server.flushdb()


@pytest.fixture(scope="package")
def engines() -> Iterator[tuple[LookAlike, LookAlike]]:
    """The Docker engines of two hosts. Sockets below pytest's folder would have long paths."""
    with (
        TemporaryDirectory(prefix="soulbox-") as folder,
        LookAlike(Path(folder) / "one", cgroup_version=2) as one,
        LookAlike(Path(folder) / "two", cgroup_version=2) as two,
    ):
        two.engine_id = "another"
        yield one, two


@pytest.fixture(scope="package")
def breakage(
    service_environment: dict[str, str],
    engines: tuple[LookAlike, LookAlike],
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Breakage]:
    """Everything that the compose file runs, with real rows: no test's transaction is around it."""
    if not os.environ.get("CI") and not all(map(shutil.which, PROGRAMS)):
        pytest.skip("Not installed: Debian's prometheus, prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("live")
    with django_db_blocker.unblock(), LocalStripe() as stripe:
        wipe()
        live.migrate({"METERING_HOST_ID": str(HOSTS[0])}, service_environment, folder)
        register_host(host_id=HOSTS[1], name="two", endpoint="unix:", now=datetime.now(UTC))
        for host_id, engine in zip(HOSTS, engines, strict=True):
            Host.objects.filter(pk=host_id).update(endpoint=engine.endpoint)
        try:
            with override_settings(STRIPE_API_KEY=API_KEY, STRIPE_API_BASE=stripe.url):
                prepared = Prepared(stripe, engines, HOSTS)
                key = issue_api_key(prepared.tenant.pk, name="Visitor", now=datetime.now(UTC))
                with (
                    live.running(service_environment, HOSTS, stripe, folder) as stack,
                    Visitor(f"http://{stack.web}/api/v1/usage/current", key.key),
                ):
                    yield Breakage(stack, prepared)
        finally:
            make_partitions(now=datetime.now(UTC))
            wipe()


@pytest.fixture(scope="package")
def watch(breakage: Breakage) -> Iterator[Watch]:
    with Watch(breakage.stack) as watch:
        yield watch


@pytest.fixture(scope="package")
def broken(breakage: Breakage, watch: Watch) -> Watch:
    """What was seen when each thing but one was broken. Nothing is mended yet."""
    watch.until_seen(AT_FIRST)
    breakage.while_all_run()
    watch.until_seen(COUNTED)
    breakage.until_found(watch, FOUND)
    # So far nothing is wrong but what was broken; what was, as all started, is over.
    later = [*AT_FIRST, *HELD, *HIDING]
    watch.until_gone(later)
    watch.forget(set(later) - set(AT_FIRST))
    breakage.and_hold()
    watch.until_seen(HELD)
    return watch


@pytest.fixture(scope="package")
def mended(breakage: Breakage, broken: Watch) -> Watch:
    """What was seen until everything was put right, and nothing fired any more."""
    breakage.mend()
    breakage.until_found_right(broken, [*COUNTED, *FOUND, *HELD])
    with breakage.without_a_right(), breakage.without_redis():
        broken.until_told([*WITHOUT_A_RIGHT, *WITHOUT_REDIS])
    broken.until_gone([*WITHOUT_A_RIGHT, *WITHOUT_REDIS])
    web = breakage.stack.processes["web"]
    web.stop()
    broken.until_told(AT_LAST)
    web.start()
    broken.until_gone([*AT_FIRST, *COUNTED, *FOUND, *HELD, *HIDING])
    return broken
