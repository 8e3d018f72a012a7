from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminTextInputWidget

from soulbox.staff import second_factor
from soulbox.staff.second_factor import CodeRefusedError

NEXT = "next"


class CodeForm(forms.Form):
    """A code."""

    code = forms.CharField(
        max_length=20,
        widget=UnfoldAdminTextInputWidget(
            attrs={"autocomplete": "one-time-code", "autofocus": True}
        ),
    )


@require_http_methods(["GET", "POST"])
def ask_code(request: HttpRequest) -> HttpResponse:
    """Ask for a code of the app, or a recovery code."""
    if is_verified(request):
        return _go_on(request)
    if not second_factor.is_set_up(_user(request)):
        return redirect("second-factor-set-up")
    form = CodeForm(request.POST or None)
    if form.is_valid():
        try:
            second_factor.give_code(request, form.cleaned_data["code"])
        except CodeRefusedError as refusal:
            form.add_error("code", str(refusal))
        else:
            return _go_on(request)
    return _page(request, "code", "Two-factor sign-in", form=form, goes_to=_next(request))


@require_http_methods(["GET", "POST"])
def set_up(request: HttpRequest) -> HttpResponse:
    """Show the secret of a new app, and take it once it gave a right code."""
    user = _user(request)
    has_one = second_factor.is_set_up(user)
    # Else a password alone would be enough, to put another app in place of theirs.
    if has_one and not is_verified(request):
        return redirect("second-factor")
    form = CodeForm(request.POST or None)
    if form.is_valid():
        try:
            codes = second_factor.confirm(request, form.cleaned_data["code"])
        except CodeRefusedError as refusal:
            form.add_error("code", str(refusal))
        else:
            return _show_codes(request, codes)
    device = second_factor.new_device(user)
    return _page(
        request,
        "set_up",
        "Set up two-factor sign-in",
        form=form,
        # Made by segno of a base32 secret and a quoted name: nothing in it is anybody's text.
        qr_code=mark_safe(second_factor.qr_code(device)),  # noqa: S308 - as said above
        secret=_secret(device),
        has_one=has_one,
        codes_left=second_factor.recovery_codes_left(user),
    )


@require_http_methods(["POST"])
def new_codes(request: HttpRequest) -> HttpResponse:
    """Make new recovery codes, for who gave a code."""
    if not is_verified(request):
        return redirect("second-factor")
    return _show_codes(request, second_factor.new_recovery_codes(request))


def is_verified(request: HttpRequest) -> bool:
    """Return whether who is logged in gave a code."""
    return bool(request.user.is_verified())  # type: ignore[union-attr]  # django-otp puts it there


def _user(request: HttpRequest) -> Any:
    return request.user


def _secret(device: Any) -> str:
    """Return the secret as people type it, in groups of four."""
    secret = second_factor.secret_text(device)
    return " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))


def _show_codes(request: HttpRequest, codes: list[str]) -> HttpResponse:
    # A page, not a message: those travel in a cookie.
    return _page(request, "recovery_codes", "Recovery codes", codes=codes)


def _page(request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": title, **context}
    return TemplateResponse(request, f"staff/{name}.html", context)


def _next(request: HttpRequest) -> str:
    asked = request.POST.get(NEXT) or request.GET.get(NEXT) or ""
    is_ours = url_has_allowed_host_and_scheme(
        asked, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return asked if is_ours else reverse("admin:index")


def _go_on(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(_next(request))
