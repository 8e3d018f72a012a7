"""E-mails over SMTP, to a real server on this machine that takes them, refuses or says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.conf import settings as django_settings
from django.core import mail
from pytest_django.fixtures import Settings

from billing import services, tasks
from billing.letters import Content
from billing.models import Account, MailMessage
from billing.models.messages import state_at
from billing.services.mail import LEASE, OLDEST_NEWS, WAITS
from billing.services.messages import Notice, write_messages
from tests.billing.mail import (
    ADDRESS,
    MailServer,
    html_of,
    issue_invoice,
    mail_server,
    open_with_owner,
    send_waiting,
    start_mailing,
    text_of,
)
from tests.billing.usage import AFTER_MAY

pytestmark = pytest.mark.django_db

LATER = AFTER_MAY + timedelta(minutes=1)
State = MailMessage.State


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with mail_server(settings) as running:
        yield running


@pytest.fixture
def message() -> MailMessage:
    start_mailing()
    issue_invoice(open_with_owner())
    services.write_due_messages(LATER)
    return MailMessage.objects.get()


def state_of(message: MailMessage, now: datetime) -> str:
    message.refresh_from_db()
    state: str = MailMessage.objects.values_list(state_at(now), flat=True).get(pk=message.pk)
    return state


def test_what_the_server_takes_is_sent_once(server: MailServer, message: MailMessage) -> None:
    assert state_of(message, LATER) == State.WAITING
    for turn in range(3):
        send_waiting(LATER + turn * LEASE)
    assert state_of(message, LATER) == State.SENT
    (taken,) = server.taken
    assert taken["Subject"] == message.subject
    assert taken["To"] == ADDRESS
    assert taken["From"] == django_settings.DEFAULT_FROM_EMAIL
    assert taken["Message-ID"] == f"<{message.pk}.1@localhost>"
    assert taken["Auto-Submitted"] == "auto-generated"
    assert text_of(taken).replace("\r\n", "\n") == message.text
    assert html_of(taken).replace("\r\n", "\n").strip() == message.html.strip()


@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_what_the_server_refuses_for_now_is_tried_again_and_sent_once(
    server: MailServer, message: MailMessage, step: str
) -> None:
    getattr(server, step).extend(["451 Try again later", "450 Try again later"])
    now = LATER
    for wait in WAITS[:2]:
        send_waiting(now)
        assert state_of(message, now) == State.WAITING
        assert "Try again later" in message.last_error
        assert message.try_at == now + wait
        # Not before its time.
        send_waiting(now + wait - timedelta(seconds=1))
        now += wait
    send_waiting(now)
    assert state_of(message, now) == State.SENT
    assert (message.attempts, message.last_error) == (3, "")
    assert len(server.taken) == 1


@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_what_the_server_refuses_for_good_is_given_up(
    server: MailServer, message: MailMessage, step: str
) -> None:
    getattr(server, step).append("550 No such person")
    for turn in range(3):
        send_waiting(LATER + turn * timedelta(days=1))
    assert state_of(message, LATER) == State.GIVEN_UP
    assert "550" in message.last_error
    assert "No such person" in message.last_error
    assert (server.taken, message.attempts) == ([], 1)
    services.send_again(message.pk, now=LATER)
    send_waiting(LATER)
    assert len(server.taken) == 1


def test_tries_end(server: MailServer, message: MailMessage) -> None:
    server.rcpt = ["450 Try again later"] * (len(WAITS) + 5)
    now = LATER
    for wait in [*WAITS, timedelta(days=1)]:
        send_waiting(now)
        now += wait
    assert state_of(message, now) == State.GIVEN_UP
    assert message.attempts == len(WAITS) + 1
    assert server.taken == []


def test_a_server_that_is_not_there_is_tried_again(
    settings: Settings, server: MailServer, message: MailMessage
) -> None:
    port, settings.EMAIL_PORT = settings.EMAIL_PORT, 1
    assert services.send_next_message(LATER) is False
    assert state_of(message, LATER) == State.WAITING
    assert "ConnectionRefusedError" in message.last_error
    settings.EMAIL_PORT = port
    send_waiting(LATER + WAITS[0])
    assert len(server.taken) == 1


def test_a_server_that_says_nothing_at_first_is_tried_again(
    settings: Settings, server: MailServer, message: MailMessage
) -> None:
    settings.EMAIL_TIMEOUT = 0.2
    server.silent_at = "EHLO"
    assert services.send_next_message(LATER) is False
    assert state_of(message, LATER) == State.WAITING
    server.silent_at = ""
    server.is_released.set()
    send_waiting(LATER + WAITS[0])
    assert state_of(message, LATER) == State.SENT
    assert len(server.taken) == 1


def test_a_server_that_took_it_and_does_not_say_so_leaves_it_to_a_person(
    settings: Settings, server: MailServer, message: MailMessage
) -> None:
    settings.EMAIL_TIMEOUT = 0.2
    server.silent_at = "DATA"
    assert services.send_next_message(LATER) is False
    assert state_of(message, LATER) == State.UNSURE
    assert "imed out" in message.last_error
    server.silent_at = ""
    server.is_released.set()
    for day in range(10):
        send_waiting(LATER + timedelta(days=day))
        services.give_up_old_messages(LATER + timedelta(days=day))
    # It did arrive, and no machine sends it again.
    assert len(server.taken) == 1
    assert state_of(message, LATER) == State.UNSURE
    services.send_again(message.pk, now=LATER)
    send_waiting(LATER)
    first, second = server.taken
    assert first["Message-ID"] == second["Message-ID"]


def test_who_has_it_and_wants_it_again_gets_another_copy(
    server: MailServer, message: MailMessage
) -> None:
    send_waiting(LATER)
    services.send_again(message.pk, now=LATER)
    send_waiting(LATER)
    first, second = server.taken
    assert first["Message-ID"] != second["Message-ID"]
    assert text_of(first) == text_of(second)


def test_what_is_being_sent_is_not_sent_again(message: MailMessage) -> None:
    MailMessage.objects.update(claimed_until=LATER + LEASE)
    with pytest.raises(services.MessageRefusedError, match="right now"):
        services.send_again(message.pk, now=LATER)


@pytest.mark.usefixtures("message")
def test_without_a_mail_server_e_mails_wait_for_a_week(settings: Settings) -> None:
    settings.MAIL_IS_SET_UP = False
    assert services.send_next_message(LATER) is False
    assert services.give_up_old_messages(LATER + OLDEST_NEWS) == 0
    assert services.give_up_old_messages(LATER + OLDEST_NEWS + timedelta(seconds=1)) == 1
    assert mail.outbox == []


def test_the_sweep_writes_and_sends(server: MailServer) -> None:
    start_mailing()
    issue_invoice(open_with_owner())
    issue_invoice(open_with_owner("Bob", "bob@example.com"))
    for _ in range(2):
        tasks.sweep_mail()
    assert sorted(email["To"] for email in server.taken) == [ADDRESS, "bob@example.com"]


HEADERS = {
    "Auto-Submitted",
    "Content-Type",
    "Date",
    "From",
    "MIME-Version",
    "Message-ID",
    "Subject",
    "To",
}
LONG = "x" * 10_000
HOSTILE = [
    '<script>alert("x")</script><img src=x onerror=alert(1)>',
    "Ada\r\nBcc: eve@example.com\r\n\r\nPay here",
    "Ada\u202etxet\u2066 \u05d0\u05d1\u05d2",
    "\N{PILE OF POO}\N{ZERO WIDTH JOINER}\N{FAMILY} {{ account_name }} {% now 'Y' %}",
    "Ada\x00\x07\x1b[31m\x85\u2028Bcc: eve@example.com",
    LONG,
]


def told(account: Account, name: str) -> Notice:
    """What an account of this name is told of a budget of it, longer than columns hold too."""
    account.name = name
    return Notice(
        account=account,
        kind=MailMessage.Kind.BUDGET_REACHED,
        about="1",
        content=Content(
            template="budget_reached",
            subject=f"80 % of a budget reached: {name}",
            account_name=name,
            facts=[("Budget", name)],
            says={"threshold": "80 %", "budget": name, "cost": "9.00 USD"},
        ),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_out_as_text(server: MailServer, name: str) -> None:
    write_messages([told(open_with_owner(), name)], now=LATER)
    assert send_waiting(LATER) == 2
    (email,) = server.taken
    assert set(email.keys()) == HEADERS
    assert email["To"] == ADDRESS
    # A long one begins on the line after the header's name.
    subject = str(email["Subject"]).strip()
    text, html = text_of(email), html_of(email)
    assert subject.startswith("80 % of a budget reached: ")
    assert len(subject) <= 150
    for body in (subject, text, html):
        assert not any(mark in body for mark in "\x00\x07\x1b\x85\u202e\u2066\u2028")
    # Nothing of a name begins a line of its own.
    assert not any(line.startswith("Bcc") for line in text.splitlines())
    assert "<script" not in html
    assert "<img" not in html
    if "<" in name:
        assert f"Account: {name}" in text.splitlines()
        assert "&lt;script&gt;alert(&quot;x&quot;)" in html
    if "{{" in name:
        assert "{{ account_name }} {% now 'Y' %}" in text
    if name == LONG:
        assert text.count("x" * 10_000) == 2 + 1
