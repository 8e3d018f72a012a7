"""Accepting an invitation, as somebody new or as who is signed in."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.generic import View

from billing.api.callers import CHOSEN_ACCOUNT
from billing.models import Invitation, Membership
from billing.services import (
    InvitationRefusedError,
    NoSuchInvitationError,
    accept_as_new_user,
    accept_invitation,
    find_invitation,
)
from soulbox.portal.forms import refuse
from soulbox.portal.views.sign_up import BACKEND, PasswordForm

OFF = "off"


class AcceptInvitation(View):
    """Where an invitation's link leads."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        """Show who invites to what, and what there is to do."""
        try:
            invitation = find_invitation(token, now=datetime.now(UTC))
        except NoSuchInvitationError as error:
            return _spent(request, str(error))
        return _page(request, invitation, PasswordForm(label_suffix=""))

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        """Make a member of who is signed in, or of somebody new with a password."""
        now = datetime.now(UTC)
        user = request.user
        form = PasswordForm(request.POST, label_suffix="")
        try:
            if isinstance(user, User):
                return _welcome(request, accept_invitation(token, user_id=user.pk, now=now))
            invitation = find_invitation(token, now=now)
            if not _may_be_new(invitation):
                return redirect_to_login(request.path, reverse("portal:sign-in"))
            if form.is_valid():
                password = form.cleaned_data["password"]
                member = accept_as_new_user(token, password=password, now=now)
                login(request, member.user, backend=BACKEND)
                return _welcome(request, member)
        except NoSuchInvitationError as error:
            return _spent(request, str(error))
        except InvitationRefusedError as error:
            refuse(form, str(error))
            invitation = find_invitation(token, now=now)
        return _page(request, invitation, form)


def _may_be_new(invitation: Invitation) -> bool:
    is_known = User.objects.filter(email__iexact=invitation.email).exists()
    return settings.SIGN_UP != OFF and not is_known


def _page(request: HttpRequest, invitation: Invitation, form: PasswordForm) -> HttpResponse:
    is_theirs = (
        isinstance(request.user, User) and request.user.email.strip().lower() == invitation.email
    )
    shown = {
        "invitation": invitation,
        "form": form,
        "is_theirs": is_theirs,
        "may_be_new": _may_be_new(invitation),
        "is_off": settings.SIGN_UP == OFF,
    }
    return render(request, "portal/invitation.html", shown)


def _welcome(request: HttpRequest, member: Membership) -> HttpResponse:
    request.session[CHOSEN_ACCOUNT] = str(member.account_id)
    messages.success(request, f"You are a member of {member.account.name}, as {member.role}.")
    return redirect("portal:overview")


def _spent(request: HttpRequest, why: str) -> HttpResponse:
    return render(request, "portal/invitation_spent.html", {"why": why}, status=410)
