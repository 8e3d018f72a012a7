"""What a monitor is told became final, and failed, since it is counted."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from billing import services
from billing.counted import failures, invoiced_amounts, oldest_open_period
from billing.models import FailureCount, Invoice, InvoicedAmount
from billing.services.counting import AMOUNTS, count_amounts
from billing.services.lifecycle import Because
from billing.services.trying import try_account
from tests.billing.usage import MAY, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db


def told(name: str) -> Mapping[str, float]:
    text = Client().get("/metrics").content.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        " ".join([one.name.removeprefix(name), *one.labels.values()]): one.value
        for one in families[name].samples
    }


def final(amount: str, *, kind: str = "usage", currency: str = "USD") -> Invoice:
    return Invoice(kind=kind, currency=currency, total_amount=Decimal(amount))


def test_an_invoice_is_counted_as_it_becomes_final_and_stays_when_it_is_void() -> None:
    assert told("soulbox_billing_amount") == {}
    invoice = bill(open_account(plan_code="professional"))
    counted = told("soulbox_billing_amount")
    assert counted["_count USD usage"] == 1
    assert counted["_sum USD usage"] == float(invoice.total_amount) == 99
    assert counted["_bucket USD 50.0 usage"] == 0
    assert counted["_bucket USD 100.0 usage"] == counted["_bucket USD +Inf usage"] == 1
    assert counted["_count USD top_up"] == counted["_bucket USD +Inf top_up"] == 0
    services.void_invoice(invoice.pk, because=Because("A mistake"), now=MAY.end)
    assert told("soulbox_billing_amount") == counted


def test_each_is_in_the_range_that_its_amount_ends() -> None:
    count_amounts([final("0"), final("0.1"), final("0.11"), final("1000"), final("1000.01")])
    count_amounts([final("10000000"), final("3", currency="EUR"), final("0.1", kind="top_up")])
    by_kind = {(one.kind, one.currency): one for one in invoiced_amounts()}
    usage = by_kind["usage", "USD"]
    assert dict(usage.up_to) == {
        amount: 2 if amount < Decimal("0.5") else 3 if amount < 1000 else 4 if amount == 1000 else 5
        for amount in AMOUNTS
    }
    assert (usage.count, usage.total) == (6, Decimal("10002000.22"))
    assert by_kind["usage", "EUR"].count == by_kind["top_up", "USD"].count == 1
    assert by_kind["final", "EUR"].count == 0
    assert InvoicedAmount.objects.filter(up_to=None).count() == 1


def test_what_is_rolled_back_is_not_counted() -> None:
    with transaction.atomic():
        bill(open_account(plan_code="professional"))
        transaction.set_rollback(True)
    assert invoiced_amounts() == []


def test_what_was_final_before_it_was_counted_is_counted_alike() -> None:
    for name in ("Ada", "Bob"):
        bill(open_account(name, plan_code="professional"))
    counted = invoiced_amounts()
    InvoicedAmount.objects.all().delete()
    migration = MigrationLoader(connection).get_migration("billing", "0035_monitoring")
    with connection.cursor() as cursor:
        cursor.execute(migration.operations[-1].sql)  # type: ignore[attr-defined] # of RunSQL
    assert invoiced_amounts() == counted


def test_a_failure_is_counted_each_time() -> None:
    def fail() -> None:
        raise ValueError("odd")

    assert failures(FailureCount.Failed.INVOICE) == 0
    assert told("soulbox_invoice_generation_errors") == {"_total": 0}
    account = open_account()
    for _ in range(2):
        assert not try_account(account.pk, fail, now=NOON)
    assert told("soulbox_invoice_generation_errors") == {"_total": 2}
    assert not try_account(account.pk, lambda: Invoice.objects.get(pk=0), now=NOON)
    assert failures(FailureCount.Failed.INVOICE) == 2


def test_the_oldest_usage_that_is_on_no_invoice_is_of_the_oldest_open_period() -> None:
    assert told("soulbox_oldest_unrated_window_seconds") == {"": 0}
    assert oldest_open_period() is None
    ada = open_account(plan_code="professional")
    assert oldest_open_period() == MAY.start
    record_usage(ada.pk, cpu_s=1)
    bill(ada)
    assert oldest_open_period() == MAY.end
    services.park_account(ada.pk, reason="odd", now=MAY.end)
    assert oldest_open_period() is None
