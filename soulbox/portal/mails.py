"""The mails that let people in. They are sent at once and not kept: what they carry are secrets."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core import signing
from django.core.mail import send_mail
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

SIGN_UP_SALT = "portal.sign-up"
SIGN_UP_WITHIN_S = 24 * 60 * 60


class _WhoHasIt(PasswordResetForm):
    """Django's own care about who has an address; staff's passwords are not reset by mail."""

    def get_users(self, email: str) -> Iterable[User]:
        """Return the members with this address."""
        return [user for user in super().get_users(email) if not user.is_staff]


def send_password_reset(address: str, *, site: str) -> None:
    """Mail the link to a new password to each who has this address."""
    for user in _WhoHasIt().get_users(address):
        uid = urlsafe_base64_encode(force_bytes(user.pk))
        path = reverse("portal:password-new", args=(uid, default_token_generator.make_token(user)))
        # To the address that is kept, which is the user's own whatever was typed.
        _send(
            user.email,
            "A new password for SoulBox",
            "password",
            {"link": site + path, "name": user.get_username()},
        )


def send_sign_up(address: str, *, site: str) -> None:
    """Mail the link with which this address signs up; who is known already is told so."""
    if User.objects.filter(email__iexact=address).exists() or (
        User.objects.filter(username=address).exists()
    ):
        link = site + reverse("portal:sign-in")
        forgotten = site + reverse("portal:password-forgotten")
        said = {"link": link, "forgotten": forgotten}
        _send(address, "You have an account at SoulBox", "known_already", said)
        return
    link = site + reverse("portal:sign-up-confirmed", args=(sign_up_token(address),))
    _send(address, "Confirm your address for SoulBox", "sign_up", {"link": link})


def sign_up_token(address: str) -> str:
    """Return what proves, for a day, that its bearer reads this address's mail."""
    return signing.dumps(address, salt=SIGN_UP_SALT)


def address_of_sign_up(token: str) -> str | None:
    """Return whose address the token proves; None where it proves nothing, or no more."""
    try:
        return str(signing.loads(token, salt=SIGN_UP_SALT, max_age=SIGN_UP_WITHIN_S))
    except signing.BadSignature:
        return None


def _send(to: str, subject: str, template: str, said: dict[str, str]) -> None:
    send_mail(subject, render_to_string(f"portal/mail/{template}.txt", said), None, [to])
