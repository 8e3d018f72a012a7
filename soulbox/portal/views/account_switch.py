from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from billing.api.callers import CHOSEN_ACCOUNT, Scope
from billing.models import Membership
from soulbox.portal.pages import MemberView


class SwitchAccount(MemberView):
    """Looks at another account from now on. One that the user is no member of is not found."""

    needs = {"POST": Scope.READ}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep the choice in the session."""
        wanted = request.POST.get("account", "")
        accounts = Membership.objects.filter(user=self.user).values_list("account_id", flat=True)
        if wanted not in {str(account_id) for account_id in accounts}:
            raise Http404
        request.session[CHOSEN_ACCOUNT] = wanted
        # What was looked at is the other account's: its address means nothing here.
        return redirect("portal:overview")
