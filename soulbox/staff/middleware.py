from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from billing.acting import acting
from soulbox.staff import second_factor
from soulbox.staff.second_factor import Policy
from soulbox.staff.views import NEXT, is_verified

Answer = Callable[[HttpRequest], HttpResponse]
READING = {"GET", "HEAD", "OPTIONS"}


def who_is_asking(answer: Answer) -> Answer:
    """Let what a request of somebody logged in changes stand in the audit trail under their name.

    Not django-pghistory's own middleware: that takes whatever an API's authentication puts in
    place of the user for one, and a key is none. What is done by a key, the API says itself.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in READING or not request.user.is_authenticated:
            return answer(request)
        with acting(user_id=request.user.pk):
            return answer(request)

    return middleware


def second_factor_first(answer: Answer) -> Answer:
    """Let staff into the admin, and all below its address, only after their second factor."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(reverse("admin:index")) or _is_on_the_way(request.path):
            return answer(request)
        wanted = second_factor.policy()
        user = request.user
        if wanted is Policy.OFF or not (user.is_authenticated and user.is_staff):
            return answer(request)
        if is_verified(request):
            return answer(request)
        if second_factor.is_set_up(user):
            back = urlencode({NEXT: request.get_full_path()}) if request.method in READING else ""
            return HttpResponseRedirect(f"{reverse('second-factor')}?{back}")
        if wanted is Policy.REQUIRED:
            return HttpResponseRedirect(reverse("second-factor-set-up"))
        return answer(request)

    return middleware


def _is_on_the_way(path: str) -> bool:
    """Return whether a page is needed to get in, or out."""
    return path.startswith(reverse("second-factor")) or path in {
        reverse("admin:login"),
        reverse("admin:logout"),
    }
