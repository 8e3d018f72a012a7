"""Reads EMAIL_URL: which of Django's mail backends, and what it needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_PORTS = {"smtp": 587, "smtps": 465, "smtp-plain": 25}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mails go. `backend` is the module's name in django.core.mail.backends."""

    backend: str
    folder: str | None = None
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    # STARTTLS after a plain greeting; TLS from the first byte.
    starts_tls: bool = False
    is_tls: bool = False


def mail_server(url: str) -> MailServer:
    """Return what EMAIL_URL says. Raises ImproperlyConfigured, without the password."""
    if not url:
        return MailServer(backend="dummy")
    parts = urlsplit(url)
    if parts.scheme == "console":
        return MailServer(backend="console")
    if parts.scheme == "file" and parts.path.startswith("/"):
        return MailServer(backend="filebased", folder=unquote(parts.path))
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ImproperlyConfigured(
            "EMAIL_URL is neither smtp://, smtps:// or smtp-plain:// with a host, nor "
            "file:///folder or console://."
        )
    try:
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured("EMAIL_URL has a port that is no number to 65535.") from None
    return MailServer(
        backend="smtp",
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        starts_tls=parts.scheme == "smtp",
        is_tls=parts.scheme == "smtps",
    )
