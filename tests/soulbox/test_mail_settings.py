from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from soulbox.mail import MailServer, mail_server


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("", MailServer("dummy")),
        ("console://", MailServer("console")),
        ("file:///var/mail%20box", MailServer("filebased", folder="/var/mail box")),
        (
            "smtp://mail.example.com",
            MailServer("smtp", None, "mail.example.com", 587, starts_tls=True),
        ),
        (
            "smtps://ada%40example.com:p%2Fw@mail.example.com",
            MailServer(
                "smtp", None, "mail.example.com", 465, "ada@example.com", "p/w", is_tls=True
            ),
        ),
        ("smtp-plain://127.0.0.1:2525", MailServer("smtp", None, "127.0.0.1", 2525)),
    ],
)
def test_the_address_of_a_mail_server_is_read(url: str, server: MailServer) -> None:
    assert mail_server(url) == server


@pytest.mark.parametrize(
    "url", ["mail.example.com", "http://mail.example.com", "smtp://", "file://mail", "smtp://m:x"]
)
def test_what_is_no_mail_server_is_refused_by_the_settings_name(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL"):
        mail_server(url)


def test_a_password_is_not_in_the_refusal() -> None:
    with pytest.raises(ImproperlyConfigured) as refusal:
        mail_server("smpt://ada:secret@mail.example.com")
    assert "secret" not in str(refusal.value)


def warnings() -> list[str | None]:
    found = run_checks()
    return [message.id for message in found if message.id in ("soulbox.W001", "soulbox.W002")]


def test_where_no_mail_server_is_named_the_setting_is(settings: Settings) -> None:
    assert warnings() == []
    settings.MAIL_IS_SET_UP = False
    (found,) = [message for message in run_checks() if message.id == "soulbox.W001"]
    assert "EMAIL_URL" in found.msg


@pytest.mark.parametrize(
    ("sender", "found"),
    [
        ("Example <billing@example.com>", []),
        ("SoulBox Billing <billing@localhost>", ["soulbox.W002"]),
        ("nobody", ["soulbox.W002"]),
    ],
)
def test_a_sender_that_servers_refuse_is_named(
    settings: Settings, sender: str, found: list[str]
) -> None:
    settings.EMBEDDED = None
    settings.DEFAULT_FROM_EMAIL = sender
    assert warnings() == found
