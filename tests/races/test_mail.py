"""Ten workers send the same e-mails at once, and workers die between two steps of one."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from django.conf import settings
from django.core.mail import get_connection
from django.db import connections
from pytest_django.fixtures import Settings

from billing import services
from billing.models import MailMessage
from billing.models.messages import state_at
from billing.services import mail
from billing.services.mail import LEASE
from tests.billing.mail import (
    MailServer,
    issue_invoice,
    mail_server,
    open_with_owner,
    start_mailing,
)
from tests.billing.usage import AFTER_MAY
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

MESSAGES = 30
LATER = AFTER_MAY + timedelta(minutes=1)
State = MailMessage.State


@pytest.fixture(autouse=True)
def _nothing_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers set no PDF: they are forks of this process, which may have set some itself.

    What sets them has threads, and a fork has none of those (docs/adr/0007).
    """
    monkeypatch.setattr(mail, "attachments_of", lambda *_, **__: ())


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    """Let e-mails go into a folder for each worker, since processes have no list in common."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    settings.EMAIL_FILE_PATH = str(tmp_path)
    return tmp_path


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with mail_server(settings) as running:
        yield running


def write_one() -> MailMessage:
    start_mailing()
    issue_invoice(open_with_owner())
    services.write_due_messages(LATER)
    return MailMessage.objects.get()


def write_many() -> None:
    start_mailing()
    issue_invoice(open_with_owner())
    services.write_due_messages(LATER)
    first = MailMessage.objects.get()
    MailMessage.objects.bulk_create(
        MailMessage(
            account_id=first.account_id,
            # About no invoice, since there is none of that number to attach.
            kind=MailMessage.Kind.PAYMENT_FAILED,
            subject_key=f"more {number}",
            recipient=first.recipient,
            subject=first.subject,
            text=first.text,
            html=first.html,
            created_at=LATER,
            try_at=LATER,
        )
        for number in range(MESSAGES - 1)
    )


def sent_into(folder: Path) -> Counter[str]:
    """Return how often each e-mail is in the folder."""
    # A file may hold several: its name is of a second and of where an object lies in memory.
    texts = [file.read_text() for file in folder.glob("*/*.log")]
    return Counter(
        found for text in texts for found in re.findall("^Message-ID: (.+)$", text, re.MULTILINE)
    )


def send_all(worker: int) -> None:
    settings.EMAIL_FILE_PATH = f"{settings.EMAIL_FILE_PATH}/{worker}"
    while services.send_next_message(LATER):
        pass


def test_ten_workers_send_each_e_mail_once(folder: Path) -> None:
    write_many()
    assert run_at_once(send_all) == [0] * WORKERS
    sent = sent_into(folder)
    assert len(sent) == MESSAGES
    assert set(sent.values()) == {1}
    assert MailMessage.objects.filter(sent_at__isnull=False).count() == MESSAGES


def send_all_unclaimed(worker: int) -> None:
    """What sending would be without a claim: look for what waits, send it, mark it sent."""
    settings.EMAIL_FILE_PATH = f"{settings.EMAIL_FILE_PATH}/{worker}"
    while message := MailMessage.objects.filter(sent_at__isnull=True).order_by("pk").first():
        mail._email(message, get_connection(), now=LATER).send()
        MailMessage.objects.filter(pk=message.pk).update(handed_over_at=LATER, sent_at=LATER)


def test_control_without_a_claim_e_mails_are_sent_twice(folder: Path) -> None:
    write_many()
    assert run_at_once(send_all_unclaimed) == [0] * WORKERS
    assert max(sent_into(folder).values()) > 1


def test_ten_sweeps_at_once_write_each_e_mail_once() -> None:
    start_mailing()
    for number in range(5):
        issue_invoice(open_with_owner(f"Ada {number}", f"ada{number}@example.com"))

    def write(_worker: int) -> None:
        services.write_due_messages(LATER)

    assert run_at_once(write) == [0] * WORKERS
    assert MailMessage.objects.count() == 5


def kill_while(is_there: Callable[[], bool]) -> None:
    """Let another process send, and kill it the moment that `is_there`."""
    connections.close_all()
    process = get_context("fork").Process(target=send_all, args=(0,))
    process.start()
    deadline = time.monotonic() + 30
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL


def state_of(message: MailMessage, *, after: timedelta) -> str:
    state: str = MailMessage.objects.values_list(state_at(LATER + after), flat=True).get(
        pk=message.pk
    )
    return state


def test_a_worker_killed_before_it_hands_over_costs_a_lease(server: MailServer) -> None:
    message = write_one()
    server.silent_at = "EHLO"
    kill_while(server.is_waited_for.is_set)
    server.silent_at = ""
    server.is_released.set()
    assert state_of(message, after=timedelta(0)) == State.SENDING
    assert services.send_next_message(LATER + LEASE - timedelta(seconds=1)) is False
    assert server.taken == []
    assert services.send_next_message(LATER + LEASE) is True
    assert state_of(message, after=LEASE) == State.SENT
    assert len(server.taken) == 1


def test_a_worker_killed_before_it_marks_leaves_it_to_a_person(server: MailServer) -> None:
    message = write_one()
    server.silent_at = "DATA"
    kill_while(server.is_waited_for.is_set)
    server.silent_at = ""
    server.is_released.set()
    # The server has it, and nobody wrote that down.
    assert len(server.taken) == 1
    for minutes in range(10):
        assert services.send_next_message(LATER + timedelta(minutes=minutes)) is False
    assert state_of(message, after=LEASE) == State.UNSURE
    assert len(server.taken) == 1
    services.send_again(message.pk, now=LATER + LEASE)
    assert services.send_next_message(LATER + LEASE) is True
    first, second = server.taken
    assert first["Message-ID"] == second["Message-ID"]
