"""Signing up: an address, the link that proves it, and then the account.

Before the link was opened there is neither user nor account, so that nothing can cost money that
nobody's address stands for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, password_validation
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.forms import CharField, ChoiceField, EmailField, EmailInput, Form, PasswordInput
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.generic import TemplateView, View

from billing.services import AccountRefusedError
from soulbox.portal import throttle
from soulbox.portal.joining import KnownAlreadyError, sign_up
from soulbox.portal.mailing import ask_for_sign_up
from soulbox.portal.mails import address_of_sign_up

OPEN = "open"
BACKEND = "django.contrib.auth.backends.ModelBackend"


class AddressForm(Form):
    """Where the link goes."""

    email = EmailField(
        label="E-mail address",
        # Of a user's name, which it becomes.
        max_length=150,
        widget=EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )


class PasswordForm(Form):
    """A new password, typed once: the browser keeps it, and it can be reset."""

    password = CharField(
        label="Password",
        strip=False,
        max_length=200,
        help_text="At least 8 characters, and not one of the common ones.",
        widget=PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean_password(self) -> str:
        """Refuse what is guessed easily."""
        password = str(self.cleaned_data["password"])
        password_validation.validate_password(password)
        return password


class AccountForm(PasswordForm):
    """What a new account needs."""

    account_name = CharField(
        label="Name of the account",
        max_length=200,
        help_text="Your company, or yourself; it is printed on invoices.",
    )
    time_zone = ChoiceField(
        label="Time zone",
        initial="UTC",
        help_text="Its midnights begin and end your billing periods.",
        choices=[(name, name) for name in sorted(available_timezones())],
    )
    field_order = ("account_name", "time_zone", "password")


class _SignUpPage(View):
    """A page that is there only where anybody may sign up."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Refuse where sign-up is not open."""
        if settings.SIGN_UP != OPEN:
            raise Http404
        return super().dispatch(request, *args, **kwargs)


class SignUp(_SignUpPage):
    """Mails the link. The answer is the same for every address."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask for the address."""
        return render(request, "portal/sign_up.html", {"form": AddressForm(label_suffix="")})

    def post(self, request: HttpRequest) -> HttpResponse:
        """Have a worker mail the link, unless it was asked for too often."""
        form = AddressForm(request.POST, label_suffix="")
        if not form.is_valid():
            return render(request, "portal/sign_up.html", {"form": form})
        address = form.cleaned_data["email"].lower()
        if throttle.may_mail(address, request):
            ask_for_sign_up(address, request)
        return redirect("portal:sign-up-mailed")


class SignUpMailed(_SignUpPage, TemplateView):
    """Says that a mail is on its way."""

    template_name = "portal/sign_up_mailed.html"


class SignUpConfirmed(_SignUpPage):
    """Where the link leads: who has it makes an account."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        """Ask what the account needs."""
        address = address_of_sign_up(token)
        if address is None or User.objects.filter(username=address).exists():
            return _link_is_spent(request, address)
        return _account_page(request, address, AccountForm(label_suffix=""))

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        """Make user and account, and sign in."""
        address = address_of_sign_up(token)
        if address is None:
            return _link_is_spent(request, address)
        form = AccountForm(request.POST, label_suffix="")
        if form.is_valid():
            try:
                user, account = sign_up(address=address, now=datetime.now(UTC), **form.cleaned_data)
            except KnownAlreadyError:
                return _link_is_spent(request, address)
            except AccountRefusedError as refusal:
                form.add_error(None, ValidationError(str(refusal)))
            else:
                login(request, user, backend=BACKEND)
                messages.success(request, f"Welcome. {account.name} is set up.")
                return redirect("portal:overview")
        return _account_page(request, address, form)


def _account_page(request: HttpRequest, address: str, form: AccountForm) -> HttpResponse:
    return render(request, "portal/sign_up_account.html", {"form": form, "address": address})


def _link_is_spent(request: HttpRequest, address: str | None) -> HttpResponse:
    """Say that the link made an account before, or is none of ours any more."""
    if address:
        messages.info(request, "This address has signed up before. Sign in.")
        return redirect("portal:sign-in")
    return render(request, "portal/sign_up_spent.html", status=410)
