"""Sends the e-mails that wait, each once; docs/messages.md says what a crash leaves.

The order of steps is what holds: claim the row, reach the mail server, write down that the
e-mail is handed over, hand it over, write down the answer. Only one worker ever gets past
"handed over", and nobody sends again by itself what was handed over and not answered.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime, parseaddr
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import Q

from billing.models import Invoice, MailMessage
from billing.models.messages import TO_BE_SENT
from billing.services.invitations import with_token
from billing.services.invoice_files import invoice_pdf
from billing.services.messages import addresses_of, invoice_notice, write_messages

LEASE = timedelta(seconds=45)
"""So long a worker may take to reach the mail server before another one tries."""
CANDIDATES = 20
"""Looked at for a claim: other workers may be quicker at some of them."""
WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 360, 720, 1440))
"""After the first refusal, the second, and so on; the next one is the last: about two days."""
LONGEST_REASON = 500
OLDEST_NEWS = timedelta(days=7)
"""What waited longer, because nothing was sent at all, is given up: its news is old."""

logger = logging.getLogger(__name__)


class MessageRefusedError(ValueError):
    """The message cannot be sent again; the error says what is missing."""


def send_next_message(now: datetime) -> bool:
    """Send the e-mail that has waited longest; return whether to go on with another one.

    False when none waits, and when the mail server is out of reach. At once with others: each
    message is claimed by one. Nothing is sent while EMAIL_URL is not set.
    """
    if not settings.MAIL_IS_SET_UP:
        return False
    message = claim_message(now)
    return message is not None and _send(message, now=now)


def claim_message(now: datetime) -> MailMessage | None:
    """Return a message that is due and nobody else's for the time of the lease, or None."""
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lte=now)
    due = MailMessage.objects.filter(TO_BE_SENT, free, try_at__lte=now).order_by("try_at", "pk")
    for message_id in due.values_list("pk", flat=True)[:CANDIDATES]:
        claimed = MailMessage.objects.filter(TO_BE_SENT, free, pk=message_id, try_at__lte=now)
        if claimed.update(claimed_until=now + LEASE):
            return MailMessage.objects.get(pk=message_id)
    return None


def give_up_old_messages(now: datetime) -> int:
    """Give up what has waited so long that its news is old; return how many. Safe to repeat."""
    old = MailMessage.objects.filter(TO_BE_SENT, try_at__lt=now - OLDEST_NEWS)
    return old.update(
        given_up_at=now,
        claimed_until=None,
        last_error="Nothing was sent for a week. Send it again if it still matters.",
    )


def send_again(message_id: UUID, *, now: datetime) -> MailMessage:
    """Let a message be sent by the next sweep, because a person says so.

    One that was given up or is unsure keeps its Message-ID: who has it already drops the second.
    One that was sent becomes another copy. One to nobody goes to the addresses of now; without
    any it is refused. One that waits stays as it is. Raises MessageRefusedError,
    MailMessage.DoesNotExist.
    """
    with transaction.atomic():
        message = MailMessage.objects.select_for_update().get(pk=message_id)
        if message.claimed_until and message.claimed_until > now:
            raise MessageRefusedError("It is being sent right now. Look again in a minute.")
        if not message.recipient:
            _address(message)
        if message.sent_at:
            message.copy += 1
        message.sent_at = message.given_up_at = message.handed_over_at = None
        message.claimed_until = None
        message.attempts, message.last_error, message.try_at = 0, "", now
        message.save(
            update_fields=[
                "recipient",
                "copy",
                "try_at",
                "claimed_until",
                "handed_over_at",
                "sent_at",
                "attempts",
                "last_error",
                "given_up_at",
            ]
        )
    return message


def send_invoice(invoice_id: int, *, now: datetime) -> int:
    """Let a final invoice be sent by the next sweep, because a person says so.

    To those who were told of it, once more; else to the account's addresses of now. Returns how
    many e-mails that are. Raises MessageRefusedError, Invoice.DoesNotExist.
    """
    invoice = Invoice.objects.select_related("account").get(pk=invoice_id)
    if invoice.number is None:
        raise MessageRefusedError("It is a draft. Finalise it first.")
    told = MailMessage.objects.filter(
        kind=MailMessage.Kind.INVOICE_READY, subject_key=invoice.number
    )
    keys = list(told.values_list("pk", flat=True))
    if not keys:
        write_messages([invoice_notice(invoice)], now=now)
        return told.count()
    for key in keys:
        send_again(key, now=now)
    return len(keys)


def attachments_of(message: MailMessage, *, now: datetime) -> Sequence[tuple[str, bytes, str]]:
    """Return what is attached to a message: file name, content and type of each.

    A ready invoice comes as PDF, the one that downloads give too. Raises ValueError.
    """
    if message.kind != MailMessage.Kind.INVOICE_READY:
        return ()
    invoice = Invoice.objects.only("pk").filter(number=message.subject_key).first()
    if invoice is None:
        raise ValueError(f"There is no invoice {message.subject_key} to attach.")
    pdf = invoice_pdf(invoice.pk, now=now)
    return [(pdf.name, pdf.content, pdf.content_type)]


def _address(message: MailMessage) -> None:
    """Give a message to nobody the account's addresses of now: itself one, copies the others."""
    first, *others = addresses_of([message.account])[message.account_id] or [""]
    if not first:
        raise MessageRefusedError(
            "The account has no address. Set its billing e-mail, or give an owner one."
        )
    written = MailMessage.objects.filter(
        kind=message.kind, subject_key=message.subject_key
    ).exclude(recipient="")
    if written.exists():
        raise MessageRefusedError("It was written to the account's addresses already.")
    message.recipient = first
    MailMessage.objects.bulk_create(
        MailMessage(
            account_id=message.account_id,
            kind=message.kind,
            subject_key=message.subject_key,
            recipient=address,
            subject=message.subject,
            text=message.text,
            html=message.html,
            created_at=message.created_at,
            try_at=message.try_at,
        )
        for address in others
    )


def _send(message: MailMessage, *, now: datetime) -> bool:
    """Send a claimed message; return whether the mail server is worth another one."""
    connection: BaseEmailBackend = get_connection()
    try:
        email = _email(message, connection, now=now)
        # Made here, so that what cannot be made is no question of whether it was sent.
        email.message()
    except (ValueError, UnicodeError) as error:
        _give_up(message, error, now=now)
        return True
    try:
        _reach(connection)
    except (OSError, smtplib.SMTPException) as error:
        # Nothing was handed over. The others would find the server as it is, too.
        _try_later(message, error, now=now)
        return False
    try:
        return _hand_over(message, email, now=now)
    finally:
        connection.close()


def _reach(connection: BaseEmailBackend) -> None:
    """Connect, log in and greet: whatever fails here, the server has no e-mail yet."""
    connection.open()
    server = getattr(connection, "connection", None)
    if isinstance(server, smtplib.SMTP):
        # Django's backend leaves it to the first e-mail where there is nothing to log in to.
        server.ehlo_or_helo_if_needed()


def _hand_over(message: MailMessage, email: EmailMultiAlternatives, *, now: datetime) -> bool:
    ours = MailMessage.objects.filter(pk=message.pk, claimed_until=message.claimed_until)
    if not ours.filter(TO_BE_SENT).update(handed_over_at=now):
        # Reaching the server took longer than the lease, and another worker has it now.
        return True
    try:
        email.send()
    except (
        smtplib.SMTPRecipientsRefused,
        smtplib.SMTPResponseException,
        smtplib.SMTPNotSupportedError,
    ) as error:
        # The server says that it does not have it.
        if _is_for_good(error):
            _give_up(message, error, now=now)
        else:
            _try_later(message, error, now=now)
        return True
    except (OSError, smtplib.SMTPException) as error:
        logger.exception("e-mail may have been sent or not", extra={"message_id": message.pk})
        ours.update(claimed_until=None, last_error=_reason(error), attempts=message.attempts + 1)
        return False
    ours.update(sent_at=now, claimed_until=None, last_error="", attempts=message.attempts + 1)
    return True


def _is_for_good(error: smtplib.SMTPException) -> bool:
    match error:
        case smtplib.SMTPNotSupportedError():
            return True
        case smtplib.SMTPSenderRefused():
            # Our own address: the same for every message, and a setting puts it right.
            return False
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            return all(code >= 500 for code, _ in refused.values())
        case smtplib.SMTPResponseException(smtp_code=code):
            return code >= 500
    return False


def _try_later(message: MailMessage, error: Exception, *, now: datetime) -> None:
    if message.attempts >= len(WAITS):
        _give_up(message, error, now=now)
        return
    logger.warning("e-mail waits: %s", _reason(error), extra={"message_id": message.pk})
    MailMessage.objects.filter(pk=message.pk, claimed_until=message.claimed_until).update(
        claimed_until=None,
        handed_over_at=None,
        try_at=now + WAITS[message.attempts],
        attempts=message.attempts + 1,
        last_error=_reason(error),
    )


def _give_up(message: MailMessage, error: Exception, *, now: datetime) -> None:
    logger.error("e-mail is given up: %s", _reason(error), extra={"message_id": message.pk})
    MailMessage.objects.filter(pk=message.pk, claimed_until=message.claimed_until).update(
        claimed_until=None,
        handed_over_at=None,
        given_up_at=now,
        attempts=message.attempts + 1,
        last_error=_reason(error),
    )


def _email(
    message: MailMessage, connection: BaseEmailBackend, *, now: datetime
) -> EmailMultiAlternatives:
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].partition("@")[2] or "localhost"
    email = EmailMultiAlternatives(
        subject=message.subject,
        body=with_token(message, message.text),
        to=[message.recipient],
        connection=connection,
        headers={
            # The same at every try, so that a receiver who has it drops the second.
            "Message-ID": f"<{message.pk}.{message.copy}@{domain}>",
            "Date": format_datetime(message.created_at),
            # Nobody is answered by a machine: RFC 3834.
            "Auto-Submitted": "auto-generated",
        },
        attachments=list(attachments_of(message, now=now)),
    )
    email.attach_alternative(with_token(message, message.html), "text/html")
    return email


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_REASON].replace("\x00", "")
