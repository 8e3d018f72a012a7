"""What the doctor looks at on this machine and around it: settings, disk, fonts, mail, engines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core import mail
from django.core.checks import WARNING, CheckMessage, run_checks
from django.core.mail.backends.smtp import EmailBackend

from billing.documents.pdf import fonts_missing
from metering.models import Host
from metering.partitions import months_kept
from metering.services import PUSHED
from metering.source import SourceError
from metering.sources import engine_of
from soulbox.findings import Finding, good, note, wrong

AHEAD = timedelta(days=32)
LEAST_FREE_BYTES = 1 << 30
LEAST_FREE_SHARE = 0.05


def django_settings() -> Iterator[Finding]:
    """Yield what Django's checks and ours say of the settings; those of the open are notes."""
    found = run_checks()
    is_open = settings.EMBEDDED is None and not settings.DEBUG
    of_open = [one for one in run_checks(include_deployment_checks=True) if one not in found]
    yield from (
        wrong(_line(one)) if one.level > WARNING else note(_line(one))
        for one in found
        if one.level >= WARNING and not one.is_silenced()
    )
    if is_open:
        yield from (note(_line(one)) for one in of_open if not one.is_silenced())
    if not found:
        yield good("settings agree with each other")


def partitions(*, now: datetime) -> Iterator[Finding]:
    """Yield whether the months to come have their tables."""
    months = months_kept()
    if not months or months[-1].end < now + AHEAD:
        yield wrong(
            "No table is made for the usage of the next month: manage.py migrate makes them, and "
            "beat sends make_partitions_ahead every six hours"
        )
    else:
        yield good(f"usage has tables up to {months[-1].start:%Y-%m}")


def disks() -> Iterator[Finding]:
    """Yield how much room there is where this process writes; of servers elsewhere it knows not."""
    places = {"SOULBOX_HOME": settings.HOME, "temporary files": Path(tempfile.gettempdir())}
    for name, folder in places.items():
        if not folder.exists():
            continue
        usage = shutil.disk_usage(folder)
        text = f"{usage.free / 2**30:.1f} GiB free for {name} ({folder})"
        is_low = usage.free < LEAST_FREE_BYTES or usage.free < LEAST_FREE_SHARE * usage.total
        yield wrong(f"Only {text}: make room") if is_low else good(text)


def fonts() -> Iterator[Finding]:
    """Yield whether invoices can be set in any script."""
    if missing := fonts_missing():
        yield wrong(
            f"No font {', '.join(missing)} for invoices: on Debian apt-get install fonts-noto-core "
            "fonts-noto-cjk fonts-noto-color-emoji"
        )
    else:
        yield good("fonts for invoices are there")


def static_files() -> Iterator[Finding]:
    """Yield whether the admin's and the page's files were collected, where they have to be."""
    root = settings.STATIC_ROOT
    if root is not None and not Path(root).is_dir():
        yield wrong(f"{root} is not there: manage.py collectstatic --no-input")


def mail_server() -> Iterator[Finding]:
    """Yield whether the mail server takes our log-in."""
    connection = mail.get_connection()
    if not settings.MAIL_IS_SET_UP or not isinstance(connection, EmailBackend):
        # Whether it should be set is a check's to say.
        return
    try:
        connection.open()
        connection.close()
    except OSError as error:
        yield wrong(f"EMAIL_URL: the mail server takes no mail of ours: {error}")
    else:
        yield good(f"the mail server {settings.EMAIL_HOST} answers")


def engines() -> Iterator[Finding]:
    """Yield which hosts' engines answer from here; elsewhere their collectors may reach them."""
    for host in Host.objects.filter(is_active=True).order_by("name")[:100]:
        engine = None if host.endpoint.startswith(PUSHED) else engine_of(host)
        if engine is None:
            continue
        try:
            engine.list_containers()
        except SourceError as error:
            yield note(f"{host.name}: {host.endpoint} does not answer from here: {error}")
        else:
            yield good(f"{host.name}: {host.endpoint} answers from here")


def _line(message: CheckMessage) -> str:
    return " ".join(part for part in (message.msg, message.hint or "", f"({message.id})") if part)
