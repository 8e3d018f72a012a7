from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client

from billing import services
from billing.models import Account, Invoice
from metering.meters import GB
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
    set_clock(NOON + timedelta(hours=1))
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
        "remaining_credits": "99.73",
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
        "subscription_fee": "99.00",
        "usage_fee": "0.27",
        "discounts": "0.00",
        "credits_used": "0.27",
        "adjustments": "0.00",
        "tax": "0.00",
        "total_amount": "99.00",
        "amount_due": "99.00",
        "computed_at": "2026-06-01T00:15:00Z",
        "finalised_at": "2026-06-01T00:15:00Z",
        "paid_at": None,
    }
    assert [line["amount"] for line in lines] == ["99.00", "0.04", "0.03", "0.20"]
    assert lines[1] == {
        "position": 2,
        "kind": "usage",
        "description": "CPU time",
        "meter": "cpu",
        "quantity": "3600",
        "unit": "cpu_seconds",
        "unit_price": "0.000012",
        "amount": "0.04",
        "period": {"start": "2026-05-01T00:00:00Z", "end": "2026-06-01T00:00:00Z"},
    }
    assert lines[0]["quantity"] == "1"


def test_invoices_come_by_page_newest_period_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.views.NewestFirst.page_size", 2)
    account = services.open_account(name="Ada", now=datetime(2026, 1, 1, tzinfo=UTC))
    services.subscribe(account.pk, plan_code="team", now=account.opened_at)
    for _ in range(3):
        account.refresh_from_db()
        due = account.open_period
        draft = services.draft_invoice(account.pk, period=due, now=due.end)
        services.finalise_invoice(draft.pk, now=draft.finalise_after)
    key = key_of(account)
    first = get("invoices", key).json()
    assert [invoice["number"] for invoice in first["results"]] == ["2026-000003", "2026-000002"]
    second = Client().get(first["next"], headers={"Authorization": f"Bearer {key}"}).json()
    assert [invoice["number"] for invoice in second["results"]] == ["2026-000001"]
    assert second["next"] is None


@pytest.mark.parametrize("cursor", ["cD0lMDA=", "cD1hYmM=", "nonsense"])
def test_a_cursor_that_no_page_gave_is_not_found(cursor: str) -> None:
    key = key_of(open_account())
    assert get(f"invoices?cursor={cursor}", key).status_code == 404


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
    assert {"/api/v1/usage/current", "/api/v1/invoices", "/api/v1/invoices/{id}"} <= set(
        schema["paths"]
    )
    # Quantities and money are text: a JSON number would be read as a float.
    assert '"type": "number"' not in json.dumps(schema)
