"""Staff's second factor: an authenticator app, and recovery codes for when it is lost.

django-otp keeps the secrets, refuses a code that was used, and makes wrong codes wait longer and
longer; here is who has to give one, and the pages.
"""

from __future__ import annotations

from base64 import b32encode
from enum import StrEnum
from typing import Any

import segno
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest
from django_otp import login, verify_token
from django_otp.plugins.otp_static.models import (
    StaticDevice,
    StaticToken,
)
from django_otp.plugins.otp_totp.models import TOTPDevice

RECOVERY_CODES = 10
TOTP_DIGITS = 6
_NAME = "soulbox"


class Policy(StrEnum):
    """Who has to give a code: nobody, who has set it up, or all staff."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class CodeRefusedError(Exception):
    """A code is wrong, was used before, or came too soon after a wrong one; the message says."""


def policy() -> Policy:
    """Return what STAFF_TWO_FACTOR says."""
    return Policy(settings.STAFF_TWO_FACTOR)


def is_set_up(user: AbstractBaseUser) -> bool:
    """Return whether the user has an authenticator app that gave a right code once."""
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def new_device(user: AbstractBaseUser) -> Any:
    """Return the user's app that is being set up. Safe to repeat: its secret stays."""
    device, _ = TOTPDevice.objects.get_or_create(
        user=user, confirmed=False, defaults={"name": _NAME}
    )
    return device


def qr_code(device: Any) -> str:
    """Return what the app reads, as an SVG element."""
    svg: str = segno.make(device.config_url, error="m").svg_inline(scale=5, light="white")
    return svg


def secret_text(device: Any) -> str:
    """Return the app's secret in base32, to be typed where no camera is."""
    return b32encode(device.bin_key).decode().rstrip("=")


def confirm(request: HttpRequest, code: str) -> list[str]:
    """Take the new app in place of the old one, and return new recovery codes.

    Raises CodeRefusedError.
    """
    device = new_device(request.user)  # type: ignore[arg-type]  # only somebody logged in gets here
    _verify(request, device, code)
    with transaction.atomic():
        TOTPDevice.objects.filter(user=request.user).exclude(pk=device.pk).delete()
        TOTPDevice.objects.filter(pk=device.pk).update(confirmed=True)
        codes = new_recovery_codes(request)
    device.confirmed = True
    _let_in(request, device)
    return codes


def give_code(request: HttpRequest, code: str) -> None:
    """Let the user in with a code of the app, or with a recovery code. Raises CodeRefusedError.

    The code's form says which it is: trying both would count a right code as a wrong one.
    """
    said = code.replace(" ", "").replace("-", "").lower()
    kind = TOTPDevice if said.isdecimal() and len(said) == TOTP_DIGITS else StaticDevice
    device = kind.objects.filter(user=request.user, confirmed=True).first()
    if device is None:
        raise CodeRefusedError("That is not the code.")
    _verify(request, device, said)
    _let_in(request, device)


def new_recovery_codes(request: HttpRequest) -> list[str]:
    """Return new recovery codes, each good for once; those there were are good no more."""
    StaticDevice.objects.filter(user=request.user).delete()
    device = StaticDevice.objects.create(user=request.user, name=_NAME)
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=code) for code in codes)
    return codes


def recovery_codes_left(user: AbstractBaseUser) -> int:
    """Return how many recovery codes were not used."""
    return int(StaticToken.objects.filter(device__user=user).count())


def reset(user_id: int) -> bool:
    """Forget a user's app and recovery codes; return whether there were any.

    Where the second factor is required, they set it up anew with the next log-in; whoever is
    logged in with the old one has to as well.
    """
    forgotten, _ = TOTPDevice.objects.filter(user_id=user_id).delete()
    codes, _ = StaticDevice.objects.filter(user_id=user_id).delete()
    return bool(forgotten or codes)


def _verify(request: HttpRequest, device: Any, code: str) -> None:
    if verify_token(request.user, device.persistent_id, code):
        return
    device.refresh_from_db()
    may_try, why = device.verify_is_allowed()
    if not may_try and "locked_until" in why:
        raise CodeRefusedError(
            f"That is not the code. The next try counts from {why['locked_until']:%H:%M:%S} UTC on."
        )
    raise CodeRefusedError("That is not the code, or it was used.")


def _let_in(request: HttpRequest, device: Any) -> None:
    # What was known of the session before is worth nothing after.
    request.session.cycle_key()
    login(request, device)
