from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings as django_settings
from django.db import OperationalError, connection, transaction
from django.test import Client
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing import services
from billing.credits import CreditKind
from billing.models import DeskCoverage, DeskSlice
from billing.rating import Unpriced
from billing.services import grant_credit, note_unpriced_usage
from billing.services.credits import Gift
from metering import stream
from metering.meters import GB, Meter
from metering.models import Host, Life, StreamCursor, ToldAccount
from metering.partitions import PARTITIONED
from metering.samples import Batch
from metering.services import register_host
from soulbox import metrics, queue_metrics
from soulbox.billing_metrics import Billing
from soulbox.celery import QUEUES
from soulbox.figures import SERIES
from soulbox.models import KeptFigures
from soulbox.tasks import take_figures
from tests.billing.usage import MAY, NOON, open_account, read_streams_until, record_usage
from tests.metering.fleet import MINUTE, Fleet
from tests.payments.attempts import attempt_that_ended

pytestmark = pytest.mark.django_db


def scrape(name: str = "soulbox_unpriced_usage_accounts") -> dict[tuple[str, str], int]:
    take_figures()
    response = Client().get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")
    families = {one.name: one for one in text_string_to_metric_families(response.content.decode())}
    family = families[name]
    assert family.type == "gauge"
    return {
        (sample.labels["meter"], sample.labels["reason"]): int(sample.value)
        for sample in family.samples
    }


def test_accounts_with_unpriced_usage_are_counted_by_meter_and_reason() -> None:
    for name in ("Ada", "Eve"):
        record_usage(open_account(name).pk, disk_write_bytes=5)
    record_usage(open_account("Bob").pk, ingress_bytes=7)
    note_unpriced_usage(now=NOON)
    told = {key: count for key, count in scrape().items() if count}
    assert told == {
        ("disk_write", "meter_not_charged"): 2,
        ("network_ingress", "meter_not_charged"): 1,
    }


def test_zeros_are_told_too() -> None:
    told = scrape()
    assert set(told) == {(meter, reason) for meter in Meter for reason in Unpriced}
    assert set(told.values()) == {0}


def test_a_scrape_needs_no_login_and_names_no_account(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account = open_account("Ada Lovelace")
    record_usage(account.pk, disk_write_bytes=5)
    note_unpriced_usage(now=NOON)
    # Tests name hosts by their accounts.
    Host.objects.update(name="h")
    with django_assert_num_queries(49):
        text = Client().get("/metrics").content.decode()
    assert "Ada" not in text
    assert str(account.pk) not in text


class Slow(Collector):
    def collect(self) -> Iterator[GaugeMetricFamily]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")
        yield GaugeMetricFamily("soulbox_slow", "Never there.", value=1)


def test_what_takes_too_long_is_ended_and_told_of_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(values("soulbox_collector_up").values()) == {1}
    # A call on the same connection, whose statements have another limit.
    assert Client().get("/api/v1/plans").status_code == 200
    monkeypatch.setattr(metrics, "STATEMENT_TIME_MS", 100)
    monkeypatch.setattr(metrics, "_COLLECTORS", {"slow": Slow(), "billing": Billing()})
    assert values("soulbox_collector_up") == {"slow": 0, "billing": 1}
    assert values("soulbox_parked_accounts") == {"": 0}
    assert "soulbox_slow" not in Client().get("/metrics").content.decode()


def test_scrapes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WAITING_S", 0.01)
    with metrics._one_at_a_time:
        answer = Client().get("/metrics")
    assert (answer.status_code, answer.content) == (503, b"Another scrape takes too long.\n")
    assert Client().get("/metrics").status_code == 200


def test_without_a_database_there_are_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise OperationalError("at db.example: password is secret")

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "atomic", refuse)
        answer = Client().get("/metrics")
    assert (answer.status_code, answer.content) == (503, b"The database does not answer.\n")


def test_who_shows_the_token_reads_and_nobody_else(settings: Settings) -> None:
    token = settings.METRICS_TOKEN = uuid4().hex
    assert Client().get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    for shown in ("", "Bearer", f"Bearer {token[1:]}", f"Bearer {token}2", f"Basic {token}", token):
        answer = Client().get("/metrics", headers={"Authorization": shown})
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
        assert b"METRICS_TOKEN" in answer.content
        assert token not in answer.content.decode()


def test_without_a_token_only_this_machine_reads_unless_all_is_here(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    outside: dict[str, Any] = {"REMOTE_ADDR": "10.0.0.7"}
    assert settings.EMBEDDED
    assert Client(**outside).get("/metrics").status_code == 200
    settings.EMBEDDED = None
    asked: list[tuple[dict[str, Any], int]] = [
        ({"REMOTE_ADDR": "127.0.0.1"}, 200),
        ({"REMOTE_ADDR": "::1"}, 200),
        (outside, 403),
        # A Unix socket: whoever stands before it asks for somebody else.
        ({"REMOTE_ADDR": ""}, 403),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "10.0.0.7"}, 403),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=10.0.0.7"}, 403),
    ]
    for environ, status in asked:
        answer = Client(**environ).get("/metrics")
        assert answer.status_code == status, environ
        assert status == 200 or b"METRICS_TOKEN is not set" in answer.content


def test_metrics_can_only_be_read() -> None:
    assert Client().post("/metrics").status_code == 405
    assert Client().head("/metrics").status_code == 200


def test_a_monitor_asks_by_the_address_that_a_process_has_inside(settings: Settings) -> None:
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["billing.example"], True
    inside = Client(headers={"host": "web:8000"})
    assert inside.get("/metrics").status_code == 200
    assert inside.get("/").status_code == 400


def values(name: str) -> dict[str, float]:
    text = Client().get("/metrics").content.decode()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    return {" ".join(one.labels.values()): one.value for one in families[name].samples}


def test_hosts_are_told_of_by_how_old_what_is_known_of_them_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = datetime.now(UTC)
    registered = now - timedelta(days=1)
    for number, ago in enumerate((None, 1000, 2000, 3000)):
        host = register_host(
            host_id=uuid4(), name=f"h{number}", endpoint="simulator:", now=registered
        )
        seen = None if ago is None else now - timedelta(seconds=ago)
        Host.objects.filter(pk=host.pk).update(last_seen_at=seen)
        StreamCursor.objects.filter(host=host).update(collected_until=seen, lost_batch_count=2)
    Host.objects.filter(name="h3").update(is_active=False)
    # Whose runtime sends samples when it has some.
    register_host(host_id=uuid4(), name="sender", endpoint="api:", now=registered)
    stream.append(Host.objects.get(name="h1").pk, Batch(collected_ms=0, interval_ms=2000))
    assert values("soulbox_streams_up") == {"": 1}
    entries = values("soulbox_stream_entries")
    assert entries == {"h0": 0, "h1": 1, "h2": 0, "sender": 0}
    assert values("soulbox_stream_lag_seconds")["sender"] == inf
    seen_s = values("soulbox_host_seen_seconds")
    assert seen_s.pop("h0") == inf
    assert {name: round(age, -3) for name, age in seen_s.items()} == {"h1": 1000, "h2": 2000}
    monkeypatch.setattr("soulbox.metering_metrics.MOST_HOSTS", 1)
    assert set(values("soulbox_stream_lag_seconds")) == {"h0", "other"}
    assert values("soulbox_host_lost_batches") == {"h0": 2, "other": 4}
    assert values("soulbox_host_running_sandboxes") == {"h0": 0, "other": 0}
    assert values("soulbox_stream_entries") == {"h0": 0, "other": 1}


def test_a_redis_that_is_away_is_told_of_and_the_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    register_host(host_id=uuid4(), name="h", endpoint="simulator:", now=NOON)
    nobody = redis.Redis(port=1, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(stream, "_looking", lambda: nobody)
    monkeypatch.setattr(queue_metrics, "_broker", lambda: nobody)
    for name, told in (
        ("soulbox_streams_up", {"": 0}),
        ("soulbox_stream_entries", {}),
        ("soulbox_broker_up", {"": 0}),
        ("soulbox_queue_length", {}),
        ("soulbox_queue_unacknowledged", {}),
        ("soulbox_host_running_sandboxes", {"h": 0}),
    ):
        assert values(name) == told


def test_tasks_that_wait_are_counted_by_queue_whatever_their_priority() -> None:
    host = register_host(host_id=uuid4(), name="h", endpoint="simulator:", now=NOON)
    broker = redis.Redis.from_url(django_settings.REDIS_URL)
    wanted = {"default": 3, f"collect.{host.pk}": 1}
    lists = ("default", "default\x06\x163", "default\x06\x169", f"collect.{host.pk}")
    try:
        before = values("soulbox_queue_length")
        for name in lists:
            broker.rpush(name, b"{}")
        broker.hset("unacked", "a", b"{}")
        after = values("soulbox_queue_length")
        assert values("soulbox_queue_unacknowledged")[""] >= 1
    finally:
        for name in lists:
            broker.rpop(name)
        broker.hdel("unacked", "a")
    assert set(after) == {*QUEUES, "collect"}
    grown = {queue: after[queue] - before[queue] for queue in after}
    assert {queue: count for queue, count in grown.items() if count} == {"default": 3, "collect": 1}
    assert sum(wanted.values()) == sum(grown.values())


def test_usage_is_told_in_the_units_of_prices_by_account_and_others() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(MINUTE)
    told = values("soulbox_usage")
    assert set(told) == {f"other {meter}" for meter in Meter}
    expected = fleet.usage()
    assert told["other cpu"] == expected[Meter.CPU] / 10**9
    assert told["other memory"] == expected[Meter.MEMORY] / (GB * 1000)
    ToldAccount.objects.create(account_id=fleet.account_id, since=NOON)
    assert values("soulbox_usage") == told | {f"{fleet.account_id} {meter}": 0 for meter in Meter}
    text = Client().get("/metrics").content.decode()
    assert f'soulbox_usage_total{{account_id="{fleet.account_id}",resource_type="cpu"}} 0' in text


def test_what_takes_long_is_told_as_it_was_last_taken_with_its_age() -> None:
    names = [series.name for series in SERIES]
    assert [values(name) for name in names] == [{}] * len(names)
    assert set(values("soulbox_figures_age_seconds").values()) == {inf}
    now = datetime.now(UTC)
    ada = open_account("Ada")
    for amount, days in ((7, 5), (20, 20), (100, 40)):
        gift = Gift(
            kind=CreditKind.PROMOTIONAL,
            amount=Decimal(amount),
            reason="A gift",
            reference=f"in {days} days",
            expires_at=now + timedelta(days=days),
        )
        grant_credit(ada.pk, gift, now=now)
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(MINUTE)
    take_figures()
    assert values("soulbox_credits_expiring") == {"USD 7": 7, "USD 30": 27}
    assert values("soulbox_credits_expiring_accounts") == {"USD 7": 1, "USD 30": 1}
    assert values("soulbox_active_sandboxes") == {"other": 1}
    # The fleet's clock is long ago.
    assert values("soulbox_unsampled_sandboxes") == {"": 1}
    recorded_s = (datetime.now(UTC) - Life.objects.get().recorded_at).total_seconds()
    assert 0 <= recorded_s - values("soulbox_summaries_age_seconds")[""] < 60
    ages = values("soulbox_figures_age_seconds")
    assert set(ages) == {
        "unpriced usage",
        "late usage",
        "payments' balance",
        "active sandboxes",
        "unsampled sandboxes",
        "day summaries",
        "expiring credit",
    }
    assert all(0 <= age < 60 for age in ages.values())
    # Of a version that knew more.
    kept = KeptFigures.objects.get(name="unsampled sandboxes")
    kept.rows.append(["soulbox_of_old", [], 1])
    kept.save()
    assert values("soulbox_unsampled_sandboxes") == {"": 1}
    take_figures()
    assert values("soulbox_credits_expiring") == {"USD 7": 7, "USD 30": 27}


def test_how_many_payments_succeed_is_told_by_period() -> None:
    assert values("soulbox_payment_success_rate") == {}
    now = datetime.now(UTC)
    for number, (ago, status) in enumerate(
        (
            (timedelta(minutes=5), "succeeded"),
            (timedelta(minutes=50), "failed"),
            (timedelta(hours=2), "succeeded"),
            (timedelta(hours=3), "succeeded"),
            (timedelta(hours=4), "abandoned"),
            (timedelta(days=20), "failed"),
            (timedelta(days=31), "failed"),
        )
    ):
        attempt_that_ended(number, now - ago, status)
    assert values("soulbox_payment_success_rate") == {"1h": 0.5, "24h": 0.75, "30d": 0.6}


def test_what_is_due_and_who_is_parked_are_told_of() -> None:
    told = ("soulbox_accounts_due", "soulbox_billing_due_seconds", "soulbox_parked_accounts")
    assert [values(name) for name in told] == [{"": 0}] * 3
    ada, bob = open_account("Ada"), open_account("Bob")
    services.park_account(bob.pk, reason="ValueError: odd", now=NOON)
    due_s = (datetime.now(UTC) - ada.open_period_end).total_seconds()
    assert values("soulbox_accounts_due") == {"": 1}
    assert 0 <= values("soulbox_billing_due_seconds")[""] - due_s < 60
    assert values("soulbox_parked_accounts") == {"": 1}
    read_streams_until(MAY.end)
    services.draft_invoice(ada.pk, period=MAY, now=MAY.end)
    # The draft's grace is over too, by now.
    assert values("soulbox_accounts_due") == {"": 1}


def test_coverage_and_lost_months_are_told_of() -> None:
    # Nothing ran: there is no share of nothing.
    assert values("soulbox_coverage_ratio") == {}
    part = DeskSlice.objects.create(number=1)
    DeskCoverage.objects.create(
        part=part, day=datetime.now(UTC).date(), running_ms=1000, measured_ms=750
    )
    assert values("soulbox_coverage_ratio") == {"": 0.75}
    assert values("soulbox_default_partition_rows") == dict.fromkeys(PARTITIONED, 0)
