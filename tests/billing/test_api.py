from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.models import Account, DiscountRule, Invoice
from metering.meters import GB, Meter
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    open_account,
    read_streams_until,
    record_first_invoice,
    record_usage,
)

pytestmark = pytest.mark.django_db

QUERIES_OF_AN_INVOICE = 9
"""The key, its state; in one snapshot: itself, lines, parts, discounts and credit notes."""
HALF_OF_MAY = datetime(2026, 5, 16, 12, tzinfo=UTC)


def key_of(account: Account) -> str:
    return services.issue_api_key(account.pk, name="test", now=NOON).key


def get(path: str, key: str) -> Any:
    return Client().get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"})


def final_invoice(account: Account) -> Invoice:
    record_first_invoice(account.pk)
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    final = services.finalise_invoice(draft.pk, now=AFTER_MAY)
    assert final is not None
    return final


def test_current_usage_is_shown_in_text_and_not_in_floats(
    set_clock: Callable[[datetime], None],
) -> None:
    set_clock(HALF_OF_MAY)
    account = open_account(plan_code="professional")
    record_usage(
        account.pk,
        NOON,
        cpu_s=3600,
        memory_gb_s=7200,
        egress_bytes=10 * GB,
        disk_write_bytes=5,
    )
    body = get("usage/current", key_of(account)).json()
    assert body == {
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "as_of": "2026-05-10T12:15:00Z",
        "plan": {"code": "professional", "name": "Professional"},
        "currency": "USD",
        "usage": {
            "cpu_seconds": "3600",
            "memory_gb_seconds": "7200",
            "network_egress_gb": "10",
            "disk_write_bytes": "5",
        },
        "cost_by_meter": {"cpu": "0.0432", "memory": "0.0288", "network_egress": "0.2"},
        "cost": {
            "cpu_cost": "0.0432",
            "memory_cost": "0.0288",
            "network_cost": "0.2",
            "storage_cost": "0",
            "gpu_cost": "0",
            "raw_cost": "0.272",
            "usage_fee": "0.27",
            "discounts": [],
            "total_discount": "0.00",
            "credits_used": "0.27",
            "final_cost": "0.00",
        },
        "total_amount": "99.00",
        "remaining_credits": "99.73",
        "remaining_prepaid": "0.00",
        "forecast": {
            "usage": {
                "cpu_seconds": "7200",
                "memory_gb_seconds": "14400",
                "network_egress_gb": "20",
                "disk_write_bytes": "10",
            },
            "cost_by_meter": {"cpu": "0.0864", "memory": "0.0576", "network_egress": "0.4"},
            "cost": {
                "cpu_cost": "0.0864",
                "memory_cost": "0.0576",
                "network_cost": "0.4",
                "storage_cost": "0",
                "gpu_cost": "0",
                "raw_cost": "0.544",
                "usage_fee": "0.55",
                "discounts": [],
                "total_discount": "0.00",
                "credits_used": "0.55",
                "final_cost": "0.00",
            },
            "total_amount": "99.00",
            "remaining_credits": "99.45",
        },
        "coverage": {"running_ms": 800_000, "measured_ms": 600_000, "ratio": "0.75"},
        "unpriced": [
            {
                "meter": "disk_write",
                "quantity": "5",
                "unit": "disk_write_bytes",
                "reason": "meter_not_charged",
                "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
            }
        ],
    }


def test_before_the_first_reading_nothing_is_claimed() -> None:
    body = get("usage/current", key_of(open_account())).json()
    assert (body["as_of"], body["usage"]) == (None, {})
    assert body["coverage"] == {"running_ms": 0, "measured_ms": 0, "ratio": None}


def test_an_invoice_is_shown_with_its_lines() -> None:
    account = open_account(plan_code="professional")
    invoice = final_invoice(account)
    body = get(f"invoices/{invoice.pk}", key_of(account)).json()
    lines = body.pop("lines")
    assert body == {
        "id": invoice.pk,
        "number": "2026-000001",
        "kind": "usage",
        "status": "pending",
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "currency": "USD",
        "tax_rate": "0",
        "tax_is_inclusive": False,
        "subscription_fee": "99.00",
        "usage_fee": "0.27",
        "discounts": "0.00",
        "credits_used": "0.27",
        "adjustments": "0.00",
        "tax": "0.00",
        "credited": "0.00",
        "total_amount": "99.00",
        "prepaid_used": "0.00",
        "amount_due": "99.00",
        "computed_at": "2026-06-01T00:15:00Z",
        "finalised_at": "2026-06-01T00:15:00Z",
        "paid_at": None,
        "applied_discounts": [],
        "credit_notes": [],
    }
    assert [line["amount"] for line in lines] == ["99.00", "0.04", "0.03", "0.20"]
    assert lines[1] == {
        "position": 2,
        "kind": "usage",
        "description": "CPU time",
        "meter": "cpu",
        "charge": "per_unit",
        "quantity": "3600",
        "unit": "cpu_seconds",
        "unit_price": "0.000012",
        "amount": "0.04",
        "discount": "0.00",
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
        "parts": [],
    }
    assert lines[0]["quantity"] == "1"


def test_a_tiered_line_has_parts_and_its_share_of_the_discounts(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    account = open_account()
    book = make_book("tiered", account=account, memory="0.01")
    add_tiered_price(book, Meter.CPU, [("1000", "0.01", "1"), (None, "0.001", "0")], "graduated")
    services.subscribe(
        account.pk,
        plan_code="enterprise",
        now=MAY.start,
        agreed=services.AgreedTerms(fee=Decimal(0), price_book=book),
    )
    DiscountRule.objects.create(
        name="Launch", kind="volume", percent=Decimal(10), amount=Decimal("0.5")
    )
    # 1 + 1000 × 0.01 + 2600 × 0.001 = 13.60, and 100 × 0.01 = 1.00: 10 % and 0.50 are 1.96.
    record_usage(account.pk, cpu_s=3600, memory_gb_s=100)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    key = key_of(account)
    get("invoices", key)
    with django_assert_num_queries(QUERIES_OF_AN_INVOICE):
        body = get(f"invoices/{draft.pk}", key).json()
    cpu, memory = body["lines"]
    assert (cpu["charge"], cpu["unit_price"], cpu["amount"], cpu["discount"]) == (
        "graduated",
        None,
        "13.60",
        "1.83",
    )
    assert cpu["parts"] == [
        {"kind": "flat_fee", "tier": 1, "quantity": "1", "unit_price": "1"},
        {"kind": "units", "tier": 1, "quantity": "1000", "unit_price": "0.01"},
        {"kind": "units", "tier": 2, "quantity": "2600", "unit_price": "0.001"},
    ]
    assert (memory["unit_price"], memory["discount"], memory["parts"]) == ("0.01", "0.13", [])
    assert body["discounts"] == "1.96"
    assert body["applied_discounts"] == [
        {
            "name": "Launch",
            "base": "usage_fee",
            "base_amount": "14.60",
            "percent": "10",
            "fixed_amount": "0.50",
            "amount": "1.96",
        }
    ]


def test_the_usage_so_far_says_what_each_discount_takes_off(
    set_clock: Callable[[datetime], None],
) -> None:
    set_clock(HALF_OF_MAY)
    account = open_account()
    DiscountRule.objects.create(name="Launch", kind="volume", percent=Decimal("12.5"))
    record_usage(account.pk, NOON, egress_bytes=10 * GB)
    cost = get("usage/current", key_of(account)).json()["cost"]
    assert cost["discounts"] == [
        {
            "name": "Launch",
            "base_amount": "0.20",
            "percent": "12.5",
            "fixed_amount": "0.00",
            "amount": "0.03",
        }
    ]
    assert (cost["total_discount"], cost["final_cost"]) == ("0.03", "0.17")


def test_invoices_come_by_page_newest_period_first() -> None:
    account = services.open_account(name="Ada", now=datetime(2026, 1, 1, tzinfo=UTC))
    services.subscribe(account.pk, plan_code="team", now=account.opened_at)
    for _ in range(3):
        account.refresh_from_db()
        due = account.open_period
        draft = services.draft_invoice(account.pk, period=due, now=due.end)
        services.finalise_invoice(draft.pk, now=draft.finalise_after)
    key = key_of(account)
    first = get("invoices?page_size=2", key).json()
    assert [invoice["number"] for invoice in first["results"]] == ["2026-000003", "2026-000002"]
    second = Client().get(first["next"], headers={"Authorization": f"Bearer {key}"}).json()
    assert [invoice["number"] for invoice in second["results"]] == ["2026-000001"]
    assert second["next"] is None


@pytest.mark.parametrize("cursor", ["cD0lMDA=", "cD1hYmM=", "nonsense"])
def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    answer = get(f"invoices?cursor={cursor}", key_of(open_account()))
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


def test_another_accounts_invoice_is_not_found() -> None:
    invoice = final_invoice(open_account("Ada"))
    other = key_of(open_account("Eve"))
    assert get(f"invoices/{invoice.pk}", other).status_code == 404
    assert get("invoices", other).json()["results"] == []
    assert get("usage/current", other).json()["usage"] == {}


@pytest.mark.parametrize("path", ["usage/current", "invoices", "invoices/1"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer sbx_live_nonsense",
        "Bearer sbx_live_a sbx_live_b",
        "Bearer \xff",
        "Basic YWRhOnNlY3JldA==",
    ],
)
def test_without_a_valid_key_nothing_is_shown(path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    response: HttpResponse = Client().get(f"/api/v1/{path}", headers=headers)  # type: ignore[assignment]
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_shows_nothing() -> None:
    issued = services.issue_api_key(open_account().pk, name="test", now=NOON)
    assert get("invoices", issued.key).status_code == 200
    services.revoke_api_key(issued.row.pk, now=NOON)
    assert get("invoices", issued.key).status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_can_be_written(method: str) -> None:
    headers = {"Authorization": f"Bearer {key_of(open_account())}"}
    for path in ("usage/current", "invoices", "invoices/1"):
        response = getattr(Client(), method)(f"/api/v1/{path}", headers=headers)
        assert response.status_code == 405


def test_money_of_a_currency_without_decimals_has_none() -> None:
    account = services.open_account(name="Aiko", now=MAY.start, currency="JPY")
    services.draft_invoice(account.pk, period=MAY, now=NOON)
    assert get("invoices", key_of(account)).json()["results"][0]["total_amount"] == "0"
    assert Invoice.objects.get().total_amount == Decimal(0)


def test_the_openapi_document_is_made_without_warnings() -> None:
    document = StringIO()
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--format=openapi-json", stdout=document
    )
    schema = json.loads(document.getvalue())
    assert {
        "/api/v1/usage/current",
        "/api/v1/usage/costs",
        "/api/v1/invoices",
        "/api/v1/invoices/{id}",
        "/api/v1/plans",
    } <= set(schema["paths"])
    assert schema["paths"]["/api/v1/plans"]["get"].get("security") in (None, [{}])
    # Quantities and money are text: a JSON number would be read as a float.
    assert '"type": "number"' not in json.dumps(schema)
