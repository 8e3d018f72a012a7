"""What every page of the portal has in common: who may see it, as of when, in whose zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.views.generic import View

from billing.api.callers import Caller, Scope, member_caller, membership_of
from billing.models import Account, Membership
from billing.services import AccountClosingError
from payments.provider import BusyError, NoAnswerError, NotSetUpError, ProviderError

READING = {"GET", "HEAD"}
PROVIDER_SILENT = "Stripe does not answer. Nothing is lost: try again in a minute."


class MemberView(View):
    """A page of the account that the session chose, for its members whose role allows it.

    `needs` is the scope that reading or changing takes, or by method. Who is not signed in is
    sent to sign in, who is in no account is told so (404), and who may not is refused (403).
    """

    needs: Mapping[str, Scope] = {"GET": Scope.READ, "POST": Scope.WRITE}
    membership: Membership
    now: datetime

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer in the account's time zone. What is refused is told on a page that can be seen."""
        if isinstance(request.user, AnonymousUser):
            return _to_sign_in(request)
        membership = membership_of(_user(request), request.session)
        if membership is None:
            return render(request, "portal/no_account.html", status=404)
        self.membership, self.now = membership, datetime.now(UTC)
        # HEAD is answered as GET is; what a view has no method for is refused by the view.
        method = "GET" if request.method in READING else str(request.method)
        needed = self.needs.get(method, Scope.ADMIN)
        with timezone.override(self.zone):
            if not self.may(needed):
                return self.page("portal/not_allowed.html", status=403)
            try:
                response = super().dispatch(request, *args, **kwargs)
            except AccountClosingError as refusal:
                return self.back("portal:overview", str(refusal), is_error=True)
            except ProviderError as error:
                return self.back("portal:payment-methods", _provider_words(error), is_error=True)
        add_never_cache_headers(response)
        return response

    @property
    def user(self) -> User:
        """Who is signed in."""
        return _user(self.request)

    @property
    def account(self) -> Account:
        """The account that is looked at."""
        return self.membership.account

    @property
    def account_id(self) -> UUID:
        """Its id."""
        return self.membership.account_id

    @property
    def zone(self) -> ZoneInfo:
        """The account's time zone, in which times are shown."""
        return ZoneInfo(self.account.time_zone)

    @property
    def caller(self) -> Caller:
        """Who is signed in, with what they may here, as in the API."""
        return member_caller(self.membership, self.user)

    def may(self, scope: Scope) -> bool:
        """Return whether the member may do what takes the scope."""
        return self.caller.may(scope)

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        """Return the page, rendered at once: templates rely on the zone in force here."""
        memberships = Membership.objects.filter(user=self.user).select_related("account")
        shown = {
            "account": self.account,
            "membership": self.membership,
            "memberships": memberships.order_by("account__name", "pk"),
            "may_write": self.may(Scope.WRITE),
            "is_owner": self.may(Scope.ADMIN),
            "now": self.now,
            **context,
        }
        return render(self.request, template, shown, status=status)

    def back(self, to: str, told: str, *args: object, is_error: bool = False) -> HttpResponse:
        """Send the browser to a page that says what came of it: a reload then repeats nothing."""
        (messages.error if is_error else messages.success)(self.request, told)
        return redirect(reverse(to, args=args))


def _user(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise TypeError(f"{request.user} is not signed in.")
    return request.user


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    sign_in = reverse("portal:sign-in")
    if request.headers.get("HX-Request"):
        # A part of a page: the whole page goes there, not the part.
        return HttpResponse(status=401, headers={"HX-Redirect": sign_in})
    # Back to where only a form leads would be an error.
    goes_to = request.get_full_path() if request.method in READING else reverse("portal:overview")
    return redirect_to_login(goes_to, sign_in)


def _provider_words(error: ProviderError) -> str:
    if isinstance(error, NotSetUpError):
        return str(error)
    if isinstance(error, NoAnswerError | BusyError):
        return PROVIDER_SILENT
    return f"Stripe refuses: {error}"
