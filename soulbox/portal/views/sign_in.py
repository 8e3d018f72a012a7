"""Signing in and out, and a password that was forgotten: Django's own views, throttled."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import views as auth_views
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.forms import EmailField, EmailInput, Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse, reverse_lazy
from django.views.generic import TemplateView, View

from soulbox.portal import throttle
from soulbox.portal.mailing import ask_for_password_reset

TOO_OFTEN = "Too many tries. Wait a quarter of an hour, or choose a new password."


class SignInForm(AuthenticationForm):
    """A user's name, or the address that is theirs alone, and the password."""

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "Name and password do not belong together. Passwords know upper case.",
    }

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **{"label_suffix": "", **kwargs})
        self.fields["username"].label = "E-mail address or user name"

    def clean(self) -> dict[str, Any]:
        """Refuse who tried too often before the password is looked at."""
        name = str(self.cleaned_data.get("username", "")).strip()
        address = throttle.address_of(self.request) if self.request else ""
        # Each counts, also where another is over already.
        is_over = [
            throttle.is_over(throttle.SIGN_IN, name.lower(), address),
            throttle.is_over(throttle.SIGN_IN_OF_NAME, name.lower()),
            throttle.is_over(throttle.SIGN_IN_OF_ADDRESS, address),
        ]
        if any(is_over):
            raise ValidationError(TOO_OFTEN, code="throttled")
        self.cleaned_data["username"] = _user_name(name)
        cleaned: dict[str, Any] = super().clean()
        throttle.forget(throttle.SIGN_IN, name.lower(), address)
        return cleaned


class SignIn(auth_views.LoginView):
    """Signs in with a password."""

    form_class = SignInForm
    template_name = "portal/sign_in.html"
    redirect_authenticated_user = True

    def get_default_redirect_url(self) -> str:
        """Return where to go from here, unless another page asked to sign in."""
        return reverse("portal:overview")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the page shows, beside the form whether there is a sign-up."""
        return super().get_context_data(is_open=settings.SIGN_UP == "open", **kwargs)


class SignOut(auth_views.LogoutView):
    """Signs out; by POST only."""

    def get_default_redirect_url(self) -> str:
        """Return where to go from here."""
        return reverse("portal:sign-in")


class ForgottenForm(Form):
    """Where the link goes."""

    email = EmailField(
        label="E-mail address",
        max_length=254,
        widget=EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )


class ForgottenPassword(View):
    """Mails a link with which a new password is chosen.

    What it answers, and how long that takes, is the same for every address.
    """

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask for the address."""
        return _forgotten(request, ForgottenForm(label_suffix=""))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Have a worker look the address up, unless it was asked for too often."""
        form = ForgottenForm(request.POST, label_suffix="")
        if not form.is_valid():
            return _forgotten(request, form)
        address = form.cleaned_data["email"].lower()
        if throttle.may_mail(address, request):
            ask_for_password_reset(address, request)
        return redirect("portal:password-mailed")


class PasswordMailed(TemplateView):
    """Says that a mail is on its way, where there is somebody with that address."""

    template_name = "portal/password_mailed.html"


class NewPassword(auth_views.PasswordResetConfirmView):
    """Takes a new password from who has the link."""

    template_name = "portal/password_new.html"
    success_url = reverse_lazy("portal:password-changed")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Return how the form is made."""
        return {**super().get_form_kwargs(), "label_suffix": ""}


class PasswordChanged(TemplateView):
    """Says that the new password holds."""

    template_name = "portal/password_changed.html"


def _forgotten(request: HttpRequest, form: ForgottenForm) -> HttpResponse:
    return render(request, "portal/password_forgotten.html", {"form": form})


def _user_name(typed: str) -> str:
    """Return the user name that belongs to what was typed: itself, or the one with that address."""
    if "@" not in typed or User.objects.filter(username=typed).exists():
        return typed
    if User.objects.filter(username=typed.lower()).exists():
        return typed.lower()
    names = User.objects.filter(email__iexact=typed, is_active=True).values_list("username")[:2]
    return names[0][0] if len(names) == 1 else typed
