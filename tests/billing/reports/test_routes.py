from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from billing import services
from billing.reports.catalogue import REPORTS
from tests.billing.admin_pages import finance, text_of, viewer
from tests.billing.reports.world import MID_JUNE, bill_a_busy_may
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.problems import errors_of

pytestmark = pytest.mark.django_db

ROUTE = "/admin/usage-report"


@pytest.fixture(autouse=True)
def _june(set_clock: Callable[[datetime], None]) -> None:
    set_clock(MID_JUNE)


def operator() -> dict[str, str]:
    key = services.issue_operator_key(name="cron", now=NOON).key
    return {"Authorization": f"Bearer {key}"}


def body(response: object) -> bytes:
    return b"".join(response.streaming_content)  # type: ignore[attr-defined]


def test_an_operator_gets_the_months_usage_as_a_streamed_file() -> None:
    account = open_account("=cmd()")
    record_usage(account.pk, cpu_s=1_000_000)
    invoice = bill(account)
    response = Client().get(ROUTE, {"month": "2026-05"}, headers=operator())
    assert response.status_code == 200
    assert response.streaming
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="usage-2026-05.csv"'
    [row] = csv.DictReader(io.StringIO(body(response).decode("utf-8-sig"), newline=""))
    assert (row["account"], row["meter"], row["quantity"]) == ("'=cmd()", "cpu", "1000000")
    assert (row["cost"], row["invoice"], row["status"]) == ("12.00", invoice.number, "pending")


def test_the_report_is_json_when_asked_and_by_sandbox() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    asked = {"month": "2026-05", "format": "json", "by": "sandbox", "account": str(account.pk)}
    response = Client().get(ROUTE, asked, headers=operator())
    [row] = json.loads(body(response))
    assert (row["sandbox"], row["raw_cost"], row["status"]) == ("sbx-1", "12", "open")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "month"),
        ({"month": ""}, "month"),
        ({"month": "May"}, "month"),
        ({"month": "2026-13"}, "month"),
        ({"month": "2026-05", "format": "xls"}, "format"),
        ({"month": "2026-05", "by": "colour"}, "by"),
        ({"month": "2026-05", "account": "me"}, "account"),
        ({"month": "2026-05", "account": "5e4ee2f6-0000-4000-8000-000000000000"}, "account"),
    ],
)
def test_a_question_that_is_no_good_is_refused_by_its_field(
    asked: dict[str, str], field: str
) -> None:
    response = Client().get(ROUTE, asked, headers=operator())
    assert response.status_code == 400
    assert list(errors_of(response)) == [field]


def test_nobody_gets_in_without_an_operators_key_nor_is_sent_to_log_in() -> None:
    customer = services.issue_api_key(open_account().pk, name="ci", now=NOON).key
    revoked = operator()
    services.revoke_operator_key("cron", now=NOON)
    for headers in ({}, {"Authorization": f"Bearer {customer}"}, revoked):
        response = Client().get(ROUTE, {"month": "2026-05"}, headers=headers)
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == "Bearer"


def test_staff_who_may_see_invoices_open_it_in_the_browser_and_others_do_not() -> None:
    assert viewer().get(ROUTE, {"month": "2026-05"}).status_code == 200
    for name, is_staff in (("customer", False), ("clerk", True)):
        client = Client()
        client.force_login(User.objects.create_user(name, is_staff=is_staff))
        assert client.get(ROUTE, {"month": "2026-05"}).status_code == 403
    assert finance().post(ROUTE, {"month": "2026-05"}).status_code in {403, 405}


def test_the_commands_write_a_file_whole_or_none(tmp_path: Path) -> None:
    bill_a_busy_may()
    path = tmp_path / "usage.csv"
    call_command("usage_report", "--month", "2026-05", "--output", str(path))
    assert path.read_bytes().count(b"\r\n") > 10
    for name, about in (
        ("revenue", ["--month", "2026-05"]),
        ("focus", ["--month", "2026-05"]),
        ("receivables", ["--as-of", "2026-06-30"]),
        ("credit_liability", ["--as-of", "2026-06-30"]),
    ):
        path = tmp_path / f"{name}.json"
        call_command("report", name, *about, "--format", "json", "--output", str(path))
        assert json.loads(path.read_text())
    with pytest.raises(CommandError, match="--output"):
        call_command("usage_report", "--month", "2026-05", "--output", "/nowhere/at/all.csv")
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["usage_report", "--month", "2026-5"], "--month"),
        (["usage_report"], "--month"),
        (["report", "receivables", "--as-of", "yesterday"], "--as-of"),
        (["report", "receivables", "--month", "2026-05"], "--month"),
        (["report", "revenue", "--month", "2026-05", "--account", "x"], "--account"),
    ],
)
def test_the_commands_name_the_argument_that_is_no_good(arguments: list[str], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        call_command(*arguments)


def test_the_page_shows_a_report_with_its_totals() -> None:
    bill_a_busy_may()
    response = viewer().get("/admin/reports/", {"report": "usage", "month": "2026-05"})
    text = text_of(response)
    assert "=cmd()" in text
    assert "2026-000001" in text
    assert "Total USD" in text


def test_the_page_sends_every_report_as_a_file() -> None:
    bill_a_busy_may()
    client = viewer()
    for name in REPORTS:
        asked = {"report": name, "month": "2026-05", "as_of": "2026-06-30"}
        assert client.get("/admin/reports/", asked).status_code == 200
        response = client.get("/admin/reports/", {**asked, "format": "csv"})
        assert len(body(response).splitlines()) > 1


def test_the_page_says_what_is_no_good_and_is_for_finance_only() -> None:
    text = text_of(viewer().get("/admin/reports/", {"report": "usage", "month": "May"}))
    assert "Write it as in 2026-05" in text
    clerk = Client()
    clerk.force_login(User.objects.create_user("clerk", is_staff=True))
    assert clerk.get("/admin/reports/").status_code == 403
    assert Client().get("/admin/reports/").status_code == 302


def test_the_sidebar_leads_to_the_reports() -> None:
    assert 'href="/admin/reports/"' in text_of(viewer().get("/admin/"))
