"""What spans apps in the admin: staff's second factor on the pages of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django_otp.plugins.otp_static.admin import (
    StaticDevice,
)
from django_otp.plugins.otp_totp.admin import TOTPDevice

from billing.admin.asking import Question, WithButtons, ask, button
from billing.admin.users import UserAdmin
from soulbox.staff import second_factor

# No role is given it, so that superusers alone have it: it opens an account to its password.
RESET_RIGHT = "auth.reset_second_factor"
RESET = Question(
    title="Reset two-factor sign-in",
    text="The authenticator app and the recovery codes are forgotten. The next log-in is by "
    "password alone, and sets it up anew where it is required. Make sure who is asking.",
    yes="Reset two-factor sign-in",
)

admin.site.unregister(User)
# django-otp's own pages show secrets and recovery codes.
admin.site.unregister(TOTPDevice)
admin.site.unregister(StaticDevice)


@admin.register(User)
class StaffAdmin(WithButtons, UserAdmin):
    """Users, with a way out for who lost their second factor."""

    actions_detail = ("reset_second_factor",)

    @button("Reset two-factor sign-in", right=RESET_RIGHT)
    def reset_second_factor(self, request: HttpRequest, user: User) -> HttpResponse:
        """Forget the user's app and recovery codes."""

        def forget(said: Mapping[str, Any]) -> str:
            del said
            had = second_factor.reset(user.pk)
            return "It is reset." if had else "It was not set up."

        return ask(self, request, user, RESET, forget)
