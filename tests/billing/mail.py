"""Accounts that e-mails are for, and a real mail server on this machine to send them to."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Account, Invoice, MailCursor, Membership
from tests.billing.usage import OPENED, bill, open_account, record_usage

OK = "250 Taken"
ADDRESS = "ada@example.com"


def start_mailing(at: datetime = OPENED) -> None:
    """Say from when on changes of invoices are told, as the migration does."""
    MailCursor.objects.update_or_create(source="invoice transitions", defaults={"looked_until": at})


def add_member(
    account: Account, address: str, role: Membership.Role = Membership.Role.OWNER
) -> User:
    """Give the account a member with this address."""
    user = User.objects.create_user(f"user of {address!r}"[:150], email=address)
    # Past the manager, which would tidy the address up.
    User.objects.filter(pk=user.pk).update(email=address)
    Membership.objects.create(user=user, account=account, role=role)
    return user


def open_with_owner(name: str = "Ada", address: str = ADDRESS) -> Account:
    """Open an account with an owner that e-mails go to."""
    account = open_account(name)
    add_member(account, address)
    return account


def issue_invoice(account: Account) -> Invoice:
    """Issue the invoice of May, of 12.00 USD."""
    record_usage(account.pk, cpu_s=1_000_000)
    invoice = bill(account)
    assert invoice.amount_due == Decimal(12)
    return invoice


def send_waiting(now: datetime) -> int:
    """Send until nothing is left to send or the server is out of reach; return the tries."""
    tries = 1
    while services.send_next_message(now):
        tries += 1
    return tries


class MailServer:
    """What the mail server takes, and how it answers: by step, the answers in turn."""

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.rcpt: list[str] = []
        self.data: list[str] = []
        # What the client is kept waiting at, until it is set.
        self.silent_at = ""
        self.is_released = threading.Event()
        # Set when the client waits there.
        self.is_waited_for = threading.Event()

    async def handle_EHLO(  # noqa: N802 - the server's own name for it
        self,
        _server: SMTP,
        session: Session,
        _envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        session.host_name = hostname
        await self._wait_at("EHLO")
        return responses

    async def handle_RCPT(  # noqa: N802 - the same
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        answer = self.rcpt.pop(0) if self.rcpt else OK
        if answer == OK:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 - the same
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        answer = self.data.pop(0) if self.data else OK
        if answer == OK:
            assert isinstance(envelope.content, bytes)
            email = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(email, EmailMessage)
            self.taken.append(email)
        await self._wait_at("DATA")
        return answer

    async def _wait_at(self, step: str) -> None:
        if self.silent_at == step:
            self.is_waited_for.set()
            await asyncio.to_thread(self.is_released.wait)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def mail_server(settings: Settings) -> Iterator[MailServer]:
    """Run a mail server on a free port of this machine, and let the settings name it."""
    server = MailServer()
    controller = Controller(server, hostname="127.0.0.1", port=free_port())
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = controller.port
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_TIMEOUT = 10
    try:
        yield server
    finally:
        server.is_released.set()
        controller.stop()


def text_of(email: EmailMessage) -> str:
    """Return the plain body."""
    body = email.get_body(preferencelist=("plain",))
    assert body is not None
    return str(body.get_content())


def html_of(email: EmailMessage) -> str:
    """Return the HTML body."""
    body = email.get_body(preferencelist=("html",))
    assert body is not None
    return str(body.get_content())
