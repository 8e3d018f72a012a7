"""Events applied again: by the command, and by staff in the admin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from payments.models import WebhookEvent
from payments.services.events import claim_event
from payments.services.providing import provider
from soulbox.staff.roles import Role
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, press, text_of
from tests.local_stripe import LocalStripe
from tests.payments.month import account_with_card
from tests.payments.signed_events import HAPPENED_AT, store

pytestmark = pytest.mark.django_db
Status = WebhookEvent.Status


def customer_of(stripe: LocalStripe) -> str:
    """Return the customer of an account with a card that we have not heard of."""
    return str(account_with_card(stripe).customer.provider_id)


def store_about(customer_id: str, event_id: str = "evt_1", **columns: object) -> WebhookEvent:
    return store(
        event_id,
        "customer.updated",
        **{"object_type": "customer", "object_id": customer_id, **columns},
    )


def replay(*arguments: str) -> list[str]:
    said = StringIO()
    call_command("replay_webhooks", *arguments, stdout=said)
    return said.getvalue().splitlines()


def test_events_that_were_given_up_are_applied_again(stripe: LocalStripe) -> None:
    customer_id = customer_of(stripe)
    store_about(customer_id, status=Status.FAILED, result="NoAnswerError: lost", tries=10)
    store_about(customer_id, "evt_2", status=Status.IGNORED, result="Of a kind unknown then.")
    taken = f"Taken over: payment methods of customer {customer_id}."
    assert replay("--failed") == [
        f"evt_1  customer.updated  applied  {taken}",
        "1 events, 0 of them not done.",
    ]
    assert replay("--failed") == ["0 events, 0 of them not done."]
    assert replay("--ignored")[0] == f"evt_2  customer.updated  applied  {taken}"
    # Once more changes nothing.
    for _ in range(2):
        assert len(replay("--since", HAPPENED_AT.isoformat())) == 3
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {Status.APPLIED}


def test_those_since_a_moment_are_applied_again_oldest_first(stripe: LocalStripe) -> None:
    customer_id = customer_of(stripe)
    hour = timedelta(hours=1)
    store_about(customer_id, "evt_new", received_at=HAPPENED_AT + hour, happened_at=HAPPENED_AT)
    store_about(customer_id, "evt_old", received_at=HAPPENED_AT, happened_at=HAPPENED_AT - hour)
    both = [line.split()[0] for line in replay("--since", "2026-06-01T12:00")[:-1]]
    assert both == ["evt_old", "evt_new"]
    assert [line.split()[0] for line in replay("--since", "2026-06-01T14:30+02:00")] == [
        "evt_new",
        "1",
    ]
    assert replay("--since", "2026-06-01T12:00", "--failed") == ["0 events, 0 of them not done."]


def test_what_fails_again_is_said(stripe: LocalStripe) -> None:
    stripe.fault("429", "GetCustomersCustomer", times=9)
    store_about(customer_of(stripe), status=Status.FAILED)
    said = StringIO()
    with pytest.raises(CommandError, match="tried again by the sweep"):
        call_command("replay_webhooks", "--failed", stdout=said)
    assert "evt_1  customer.updated  received  BusyError: " in said.getvalue()


def test_an_event_that_somebody_applies_is_left_to_them(stripe: LocalStripe) -> None:
    store_about(customer_of(stripe))
    claim_event("evt_1", now=datetime.now(UTC))
    said = StringIO()
    with pytest.raises(CommandError):
        call_command("replay_webhooks", "--event", "evt_1", stdout=said)
    assert "evt_1  customer.updated  received  Somebody is applying it." in said.getvalue()


def test_an_event_that_did_not_arrive_is_fetched(stripe: LocalStripe) -> None:
    customer_id = customer_of(stripe)
    every = provider().events(since=datetime.now(UTC) - timedelta(hours=1), only_undelivered=False)
    event_id = next(one.id for one in every if one.type == "payment_method.attached")
    said = replay("--event", event_id, "--fetch")
    taken = f"Taken over: payment methods of customer {customer_id}."
    assert said[0] == f"{event_id}  payment_method.attached  applied  {taken}"
    row = WebhookEvent.objects.get()
    assert (row.source, row.status) == ("fetched", Status.APPLIED)
    assert replay("--event", event_id, "--fetch")[-1] == "1 events, 0 of them not done."
    assert WebhookEvent.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Say which"),
        (("--fetch",), "--fetch goes with --event"),
        (("--event", "evt_none"), "evt_none is not stored"),
        (("--event", "evt_none", "--fetch"), "evt_none was not fetched: "),
        (("--since", "yesterday"), "'yesterday' is not a time"),
    ],
)
def test_a_call_that_means_nothing_is_refused(
    stripe: LocalStripe, arguments: tuple[str, ...], words: str
) -> None:
    assert stripe.url
    with pytest.raises(CommandError, match=words):
        call_command("replay_webhooks", *arguments)


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hinted: list[str] = []
    monkeypatch.setattr("payments.admin.events.hurry", lambda _task, *ids: hinted.extend(ids))
    return hinted


def staff(role: Role) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.groups.add(Group.objects.get(name=role.value))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("role", [Role.FINANCE_MANAGER, Role.OPERATOR])
def test_staff_have_an_event_applied_again(
    role: Role,
    hints: list[str],
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    row = store(status=Status.FAILED, result="NoAnswerError: lost", tries=10)
    client = staff(role)
    with django_capture_on_commit_callbacks(execute=True):
        shown = text_of(press(client, row, "apply_again"))
    assert "evt_1 is applied within a minute." in shown
    row.refresh_from_db()
    assert (row.status, row.result, row.tries) == (Status.RECEIVED, "", 0)
    assert hints == ["evt_1"]
    store("evt_2", status=Status.IGNORED)
    claim_event("evt_1", now=datetime.now(UTC))
    pks = WebhookEvent.objects.values_list("pk", flat=True)
    shown = act(client, WebhookEvent, "apply_chosen_again", *pks)
    assert "evt_1 is being applied right now." in shown
    assert "evt_2 is applied within a minute." in shown


@pytest.mark.parametrize("role", [Role.FINANCE, Role.SUPPORT])
def test_others_only_look(role: Role, hints: list[str]) -> None:
    row = store(status=Status.FAILED, result="NoAnswerError: lost")
    client = staff(role)
    assert "NoAnswerError: lost" in text_of(client.get(page(WebhookEvent)))
    assert press(client, row, "apply_again").status_code == 403
    act(client, WebhookEvent, "apply_chosen_again", row.pk)
    row.refresh_from_db()
    assert row.status == Status.FAILED
    assert hints == []


def test_events_are_found_and_read() -> None:
    body = {"data": {"object": {"name": "<script>alert(1)</script> ünïcode"}}}
    row = store("evt_1", body=body, result="Taken over.", status="applied", applied_at=HAPPENED_AT)
    for number in range(2, 5):
        store(f"evt_{number}", "charge.refunded", object_type="charge", object_id="ch_1")
    client = admin_pages.viewer()
    found = text_of(client.get(page(WebhookEvent), {"q": "ch_1"}))
    assert "evt_2" in found
    assert "evt_1<" not in found
    assert "evt_1" in text_of(client.get(page(WebhookEvent), {"status__exact": "applied"}))
    shown = text_of(client.get(page(WebhookEvent, row.pk, "change")))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ünïcode" in shown
    assert "?q=in_1" in shown
    assert client.post(page(WebhookEvent, "add"), {}).status_code == 403
    assert (
        client.post(page(WebhookEvent, row.pk, "change"), {"status": "failed"}).status_code == 403
    )


def test_a_long_body_is_cut() -> None:
    row = store(body={"long": "x" * 150_000})
    shown = text_of(admin_pages.viewer().get(page(WebhookEvent, row.pk, "change")))
    assert "characters more" in shown
    assert "x" * 100_001 not in shown
