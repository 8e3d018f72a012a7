from __future__ import annotations

from celery import shared_task

from soulbox.portal import mails


@shared_task(name="portal.tasks.mail_password_reset")
def mail_password_reset(address: str, site: str) -> None:
    """Mail the link to a new password to who has this address."""
    mails.send_password_reset(address, site=site)


@shared_task(name="portal.tasks.mail_sign_up")
def mail_sign_up(address: str, site: str) -> None:
    """Mail the link with which this address signs up; who is known already is told so."""
    mails.send_sign_up(address, site=site)
