from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import RequestFactory
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from billing import services
from billing.models import OperatorKey
from billing.operator_access import Operator, OperatorKeyAuthentication
from tests.billing.admin_pages import act, finance, page, text_of, viewer
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db


def test_a_key_authenticates_and_is_kept_only_as_its_hash() -> None:
    issued = services.issue_operator_key(name="cron", now=NOON)
    assert issued.key.startswith("sbx_op_")
    assert len(issued.key) >= 40
    assert services.authenticate_operator_key(issued.key, now=NOON) == issued.row
    kept = OperatorKey.objects.values().get()
    assert issued.key not in str(kept)
    assert issued.key.startswith(kept["prefix"])


def test_a_name_is_in_use_once_and_free_again_when_its_key_is_revoked() -> None:
    first = services.issue_operator_key(name="cron", now=NOON)
    with pytest.raises(services.OperatorKeyRefusedError, match="in use"):
        services.issue_operator_key(name=" cron ", now=NOON)
    services.revoke_operator_key("cron", now=NOON)
    second = services.issue_operator_key(name="cron", now=NOON)
    assert first.key != second.key
    assert services.authenticate_operator_key(first.key, now=NOON) is None
    assert services.authenticate_operator_key(second.key, now=NOON) == second.row


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_name_that_tells_nobody_apart_is_refused(name: str) -> None:
    with pytest.raises(services.OperatorKeyRefusedError, match="name"):
        services.issue_operator_key(name=name, now=NOON)


def test_revoking_again_changes_nothing() -> None:
    services.issue_operator_key(name="cron", now=NOON)
    services.revoke_operator_key("cron", now=NOON)
    services.revoke_operator_key("cron", now=NOON + timedelta(days=1))
    assert OperatorKey.objects.get().revoked_at == NOON
    with pytest.raises(services.OperatorKeyRefusedError, match="no operator key"):
        services.revoke_operator_key("other", now=NOON)


def test_use_is_noted_once_a_minute() -> None:
    issued = services.issue_operator_key(name="cron", now=NOON)
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (61, 60)):
        services.authenticate_operator_key(issued.key, now=NOON + timedelta(seconds=seconds))
        assert OperatorKey.objects.get().last_used_at == NOON + timedelta(seconds=noted)


def test_kinds_of_keys_are_not_taken_for_one_another() -> None:
    customer = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    operator = services.issue_operator_key(name="cron", now=NOON)
    assert services.authenticate_operator_key(customer.key, now=NOON) is None
    assert services.authenticate_api_key(operator.key, now=NOON) is None


def test_who_asks_is_named_by_the_key(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)
    issued = services.issue_operator_key(name="cron", now=NOON)
    request = RequestFactory().get("/", headers={"Authorization": f"Bearer {issued.key}"})
    found = OperatorKeyAuthentication().authenticate(Request(request))
    assert found == (Operator("cron", issued.row.pk), issued.row)
    assert str(found[0]) == "operator key cron"
    plain = RequestFactory().get("/")
    assert OperatorKeyAuthentication().authenticate(Request(plain)) is None
    wrong = RequestFactory().get("/", headers={"Authorization": "Bearer sbx_op_x"})
    with pytest.raises(AuthenticationFailed):
        OperatorKeyAuthentication().authenticate(Request(wrong))


def test_commands_issue_and_revoke() -> None:
    out = io.StringIO()
    call_command("issue_operator_key", "cron", stdout=out, stderr=io.StringIO())
    key = out.getvalue().strip()
    assert services.authenticate_operator_key(key, now=NOON)
    with pytest.raises(CommandError, match="in use"):
        call_command("issue_operator_key", "cron")
    call_command("revoke_operator_key", "cron", stdout=io.StringIO())
    assert services.authenticate_operator_key(key, now=timezone.now()) is None
    with pytest.raises(CommandError, match="no operator key"):
        call_command("revoke_operator_key", "other")


def test_the_admin_shows_a_new_key_once_and_revokes(set_clock: Callable[[datetime], None]) -> None:
    set_clock(NOON)
    client = finance()
    shown = client.post(page(OperatorKey, "add"), {"name": "cron"})
    row = OperatorKey.objects.get()
    key = text_of(shown).split("<code>")[1].split("</code>")[0]
    assert services.authenticate_operator_key(key, now=NOON) == row
    assert "no-store" in shown["Cache-Control"]
    assert key not in text_of(client.get(page(OperatorKey, row.pk, "change")))
    again = client.post(page(OperatorKey, "add"), {"name": "cron"})
    assert "in use" in text_of(again)
    act(client, OperatorKey, "revoke", row.pk)
    assert OperatorKey.objects.get().revoked_at == NOON


def test_who_may_only_look_issues_and_revokes_nothing() -> None:
    row = services.issue_operator_key(name="cron", now=NOON).row
    client = viewer()
    assert client.get(page(OperatorKey)).status_code == 200
    assert client.post(page(OperatorKey, "add"), {"name": "other"}).status_code == 403
    act(client, OperatorKey, "revoke", row.pk)
    assert OperatorKey.objects.get().revoked_at is None
