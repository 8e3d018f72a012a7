from __future__ import annotations

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from billing.rating import Unpriced
from billing.services import note_unpriced_usage
from metering.meters import Meter
from tests.billing.usage import NOON, open_account, record_usage

pytestmark = pytest.mark.django_db


def scrape(name: str = "soulbox_unpriced_usage_accounts") -> dict[tuple[str, str], int]:
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
    with django_assert_num_queries(18):
        text = Client().get("/metrics").content.decode()
    assert "Ada" not in text
    assert str(account.pk) not in text


def test_metrics_can_only_be_read() -> None:
    assert Client().post("/metrics").status_code == 405
    assert Client().head("/metrics").status_code == 200
