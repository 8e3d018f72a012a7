"""The e-mail about an endpoint that takes nothing any more."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from billing.letters import Content, moment_text
from billing.models import MailMessage, WebhookEndpoint
from billing.services.messages import Notice, write_messages


def tell_of_disabled(endpoint: WebhookEndpoint, *, now: datetime) -> None:
    """Tell that nothing is sent to the endpoint any more, and why. Safe to repeat."""
    account = endpoint.account
    content = Content(
        template="webhook_disabled",
        subject="A webhook endpoint was disabled",
        account_name=account.name,
        facts=[
            ("Endpoint", endpoint.url),
            ("Reason", endpoint.disabled_reason),
            ("Disabled", moment_text(now, ZoneInfo(account.time_zone))),
        ],
        says={"url": endpoint.url},
    )
    about = f"{endpoint.pk} {now:%Y-%m-%dT%H:%M:%S}"
    kind = MailMessage.Kind.WEBHOOK_DISABLED
    write_messages([Notice(account, kind, about, content)], now=now)
