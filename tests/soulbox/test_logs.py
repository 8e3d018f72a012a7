from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import UUID

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.utils import timezone
from structlog.contextvars import bound_contextvars, clear_contextvars, get_contextvars

from billing import services
from billing.models import Account
from soulbox.celery import app
from soulbox.doors import request_id
from soulbox.logs import HIDDEN, LineFormatter, json_formatter
from tests.billing.usage import NOON, bill, open_account, record_usage
from tests.processes import running, wait_until

ACCOUNT = UUID("00000000-0000-4000-8000-0000000000d0")


@pytest.fixture(autouse=True)
def _nothing_is_at_work() -> Iterator[None]:
    clear_contextvars()
    yield
    clear_contextvars()


def told(**fields: Any) -> dict[str, Any]:
    """What an event says as JSON: one line."""
    record = logging.makeLogRecord({"name": "billing", "levelname": "INFO", **fields})
    text = json_formatter().format(record)
    assert "\n" not in text
    event: dict[str, Any] = json.loads(text)
    return event


def test_an_event_is_one_object_for_programs() -> None:
    with bound_contextvars(request_id="r-1"):
        event = told(msg="invoice %s", args=("final",), invoice_id=7, account_id=ACCOUNT)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "message": "invoice final",
        "level": "info",
        "logger": "billing",
        "request_id": "r-1",
        "invoice_id": 7,
        "account_id": str(ACCOUNT),
    }


def test_a_traceback_is_in_the_object() -> None:
    try:
        int("whsec_abcdef")
    except ValueError:
        event = told(msg="failed", exc_info=sys.exc_info(), request=object())
    assert "Traceback" in event["exception"]
    assert f"invalid literal for int() with base 10: '{HIDDEN}'" in event["exception"]
    assert "request" not in event


@pytest.mark.parametrize(
    "secret",
    [
        "sbx_live_LccCO91UE0GqliWlcfrfkx49C1Ls3JCk",
        "sbx_meter_LccCO91UE0",
        "sk_test_51Abc",
        "rk_live_51Abc",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "soulbox_app:hunter2",
        "eyJhbGciOiJIUzI1NiJ9.e30.abc",
    ],
)
def test_no_secret_is_written(secret: str) -> None:
    before = {"soulbox_app:hunter2": "postgres://", "eyJhbGciOiJIUzI1NiJ9.e30.abc": "Bearer "}
    text = f"{before.get(secret, '')}{secret}" + ("@db/soulbox" if ":" in secret else "")
    record = {"msg": "tried %s", "args": (text,), "levelname": "INFO", "given": text}
    for said in (
        json.dumps(told(**record)),
        LineFormatter("{message}", style="{").format(logging.makeLogRecord(record)),
    ):
        assert secret not in said
        assert said.count(HIDDEN) == 2


def test_what_is_named_a_secret_is_hidden() -> None:
    given = {"password": "hunter2", "client_secret": "x", "sandbox_id": "s"}
    event = told(msg="asked", **given)
    assert (event["password"], event["client_secret"]) == (HIDDEN, HIDDEN)
    assert event["sandbox_id"] == "s"


def test_a_line_tells_what_is_at_work() -> None:
    record = logging.makeLogRecord({"msg": "late", "host": "h"})
    with bound_contextvars(task="metering.tasks.collect", task_id="t-1"):
        line = LineFormatter("{message}", style="{").format(record)
    message, *fields = line.split()
    assert message == "late"
    assert set(fields) == {"task=metering.tasks.collect", "task_id=t-1", "host=h"}


def test_requests_and_tasks_say_what_they_are() -> None:
    seen: list[dict[str, Any]] = []

    def answer(_request: HttpRequest) -> HttpResponse:
        seen.append(get_contextvars())
        return HttpResponse()

    request = HttpRequest()
    request.META["HTTP_X_REQUEST_ID"] = "from-a-client"
    request.resolver_match = None
    request_id(answer)(request)

    @app.task(name="tests.look")
    def look() -> None:
        seen.append(get_contextvars())

    try:
        look.apply(task_id="t-1")
    finally:
        app.tasks.unregister("tests.look")
    assert seen == [
        {"request_id": "from-a-client"},
        {"task": "tests.look", "task_id": "t-1"},
    ]
    assert get_contextvars() == {}


def test_a_line_ends_with_the_ids_of_the_event() -> None:
    record = logging.makeLogRecord(
        {"msg": "invoice %s", "args": ("final",), "levelname": "INFO", "invoice_id": 7}
    )
    formatter = LineFormatter("{levelname} {message}", style="{")
    assert formatter.format(record) == "INFO invoice final invoice_id=7"


def test_objects_that_django_adds_are_left_out() -> None:
    record = logging.makeLogRecord({"msg": "gone", "request": object(), "status_code": 404})
    assert LineFormatter("{message}", style="{").format(record) == "gone status_code=404"


HOSTILE = {
    "Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
    "card": "4242 4242 4242 4242",
    "number": "4000-0025-0000-3155",
    "cvc": "123",
    "deep": [{"client_secret": "seti_1_secret_2"}, ("whsec_abcdef", {"exp_month": 12})],
    "url": "https://ada:hunter2@example.com/?token=abc",
    "line\nbreak": 'x\n{"level": "forged"}',
}
NEVER = (
    "eyJhbGciOiJIUzI1NiJ9",
    "4242 4242",
    "0025-0000",
    "seti_1_secret_2",
    "whsec_abcdef",
    "hunter2",
    "token=abc",
)


def charge(card: dict[str, Any]) -> None:
    secret_in_a_local = f"sk_live_{card['cvc']}abcdef"
    raise ValueError(f"declined {secret_in_a_local} for {card}")


def test_a_hostile_payload_leaves_no_secret_anywhere() -> None:
    try:
        charge(HOSTILE)
    except ValueError:
        failure = sys.exc_info()
    fields = {
        "levelname": "ERROR",
        "exc_info": failure,
        "given": HOSTILE,
        "args": (HOSTILE["url"],),
    }
    text = json.dumps(told(msg="asked %s", **fields))
    line = LineFormatter("{message}", style="{").format(
        logging.makeLogRecord({"msg": "asked %s", **fields})
    )
    for said in (text, line):
        assert [secret for secret in (*NEVER, "sk_live_123") if secret in said] == []
    event = json.loads(text)
    # What is not secret is told, and nothing pretends to be an event.
    assert (event["level"], event["given"]["cvc"]) == ("error", HIDDEN)
    assert "ValueError: declined [hidden]" in event["exception"]
    assert "charge" in event["exception"]


def test_numbers_that_are_no_cards_are_told() -> None:
    for number in ("1234567890123", "2026-11-02 12:00", "00000000-0000-4000-8000-0000000000d0"):
        assert told(msg=f"at {number}")["message"] == f"at {number}"


@pytest.mark.django_db
def test_a_request_is_one_line_with_its_route_and_account(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = services.issue_api_key(open_account().pk, name="ci", now=timezone.now()).key
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "asked-once"}
    seen: list[dict[str, Any]] = []

    def info(_message: str, *, extra: dict[str, Any]) -> None:
        seen.append(get_contextvars() | extra)

    monkeypatch.setattr("soulbox.doors.requests.info", info)
    Client().get("/api/v1/invoices/7?after=secret", headers=headers)
    Client().get("/password/MQ/a-token")
    first, second = seen
    assert (first["method"], first["route"]) == ("GET", "api/v1/invoices/<int:pk>")
    assert first["status"] in range(400, 500)
    assert first["account_id"] == str(Account.objects.get().pk)
    assert first["request_id"] == "asked-once"
    # The next one is somebody else's.
    assert "account_id" not in second
    assert second["route"] == "password/<uidb64>/<token>"
    assert "secret" not in str(seen)
    assert "a-token" not in str(seen) + caplog.text


def test_links_that_let_people_in_are_not_written() -> None:
    for path in (
        "/password/MQ/cd3-abc?x=1",
        "/invitations/secret-token",
        "https://a.example/sign-up/xyz",
    ):
        assert HIDDEN in told(msg=f"Not Found: {path}")["message"]
        for secret in ("cd3-abc", "secret-token", "xyz"):
            assert secret not in told(msg=f"Not Found: {path}")["message"]


def test_a_task_says_about_whom_and_nothing_else() -> None:
    seen: list[dict[str, Any]] = []

    @app.task(name="tests.about")
    def about(account_id: str, address: str, *, invoice_id: int = 0) -> None:
        seen.append(get_contextvars())
        assert (account_id, address, invoice_id) == ("a-1", "ada@example.com", 7)

    try:
        about.apply(("a-1", "ada@example.com"), {"invoice_id": 7}, task_id="t-1")
    finally:
        app.tasks.unregister("tests.about")
    assert seen == [{"task": "tests.about", "task_id": "t-1", "account_id": "a-1", "invoice_id": 7}]
    assert get_contextvars() == {}


@pytest.mark.django_db
def test_what_happened_is_a_line_once_it_is_committed(
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: Callable[..., AbstractContextManager[Any]],
) -> None:
    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "INFO"]

    with caplog.at_level("INFO"), django_capture_on_commit_callbacks(execute=True):
        account = open_account()
        record_usage(account.pk, cpu_s=10**6)
        invoice = bill(account)
        services.mark_payment_failed(invoice.pk, because=services.Because("declined"), now=NOON)
        services.issue_api_key(account.pk, name="ci", now=NOON)
        assert "invoice finalised" not in lines()
    assert {"invoice finalised", "invoice is payment_failed", "API key made"} <= set(lines())
    [final] = [record for record in caplog.records if record.getMessage() == "invoice finalised"]
    assert (vars(final)["account_id"], vars(final)["amount_due"]) == (account.pk, "12.00")


@pytest.mark.django_db
def test_a_sign_in_that_fails_is_a_line_without_what_was_typed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Client().post("/admin/login/", {"username": "hunter2", "password": "hunter3"})
    [record] = [one for one in caplog.records if one.getMessage() == "sign-in failed"]
    assert vars(record)["address"] == "127.0.0.1"
    assert "hunter" not in str(vars(record))


def test_gunicorn_tells_of_itself_as_all_else_does(
    service_environment: Mapping[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    command = next(
        line.removeprefix("web: ").split()
        for line in (settings.BASE_DIR / "Procfile").read_text().splitlines()
        if line.startswith("web: ")
    )
    command = [bind if "$WEB_PORT" in word else word for word in command]
    log = tmp_path / "web.log"
    with running("-m", *command, env=service_environment, log=log):
        wait_until(lambda: _answers(bind), seconds=90, what="gunicorn")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"gunicorn.error", "soulbox.requests"} <= {event["logger"] for event in events}
    asked, *_ = [event for event in events if event.get("route") == "password"]
    assert (asked["method"], asked["level"]) == ("GET", "info")
    assert len(asked["request_id"]) == 32


def _answers(bind: str) -> bool:
    try:
        with urlopen(f"http://{bind}/password", timeout=10) as answer:
            return bool(answer.status)
    except HTTPError:
        return True
    except OSError:
        return False
