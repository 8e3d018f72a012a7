"""The account's keys to the API. A key is shown once, on the page that answers its making."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.forms import CharField, CheckboxSelectMultiple, HiddenInput, MultipleChoiceField
from django.http import Http404, HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.models import ApiKey
from billing.services.api_keys import (
    ApiKeyRefusedError,
    IssuedApiKey,
    NoSuchApiKeyError,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)
from soulbox.portal.forms import PortalForm
from soulbox.portal.once import claim, new_once
from soulbox.portal.pages import MemberView

PAGE = "portal:api-keys"
OVERLAP = timedelta(days=1)
"""So long a key that is rotated works beside the new one: programs take some time to change."""
SHOWN_ALREADY = "The key was made and shown already. Where you did not keep it, rotate it."


class KeyForm(PortalForm):
    """What a new key is called, and what it may do."""

    once = CharField(widget=HiddenInput, max_length=64)
    name = CharField(label="Name", max_length=100, help_text="Which program has it.")
    scopes = MultipleChoiceField(
        label="It may",
        choices=[(scope.value, scope.label.capitalize()) for scope in Scope],
        initial=[Scope.READ.value],
        widget=CheckboxSelectMultiple,
    )


class ApiKeys(MemberView):
    """The keys that are not revoked."""

    needs = {"GET": Scope.ADMIN}

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them."""
        del request
        return self.shown(KeyForm(initial={"once": new_once()}))

    def shown(self, form: KeyForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page("portal/api_keys.html", form=form, keys=self.keys, once=new_once())

    @property
    def keys(self) -> list[ApiKey]:
        """The account's keys that work."""
        working = Q(expires_at__isnull=True) | Q(expires_at__gt=self.now)
        keys = ApiKey.objects.filter(working, account=self.account_id, revoked_at__isnull=True)
        return list(keys.order_by("-created_at", "-pk"))

    def issued(self, issued: IssuedApiKey, until: str = "") -> HttpResponse:
        """Return the one page that shows the key."""
        return self.page("portal/secret.html", what="API key", secret=issued.key, until=until)


class KeyCreate(ApiKeys):
    """Makes a key."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make it, once for a form."""
        form = KeyForm(request.POST)
        if not form.is_valid():
            return self.shown(form)
        asked = form.cleaned_data
        if not claim(self.account_id, "api-key", asked["once"]):
            return self.back(PAGE, SHOWN_ALREADY, is_error=True)
        try:
            issued = issue_api_key(
                self.account_id, name=asked["name"], scopes=asked["scopes"], now=self.now
            )
        except ApiKeyRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.issued(issued)


class KeyRotate(ApiKeys):
    """Makes a key that may do the same; the old one works for a day beside it."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Rotate it, once for a form. Another account's key is not found."""
        if not ApiKey.objects.filter(pk=pk, account=self.account_id).exists():
            raise Http404
        if not claim(self.account_id, f"rotate-{pk}", request.POST.get("once", "")):
            return self.back(PAGE, SHOWN_ALREADY, is_error=True)
        try:
            issued = rotate_api_key(self.account_id, pk, overlap=OVERLAP, now=self.now)
        except NoSuchApiKeyError:
            return self.back(PAGE, "The key does not work any more. Make another.", is_error=True)
        except ApiKeyRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.issued(issued, until="The old one works for a day more.")


class KeyRevoke(ApiKeys):
    """Refuses a key from now on."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Revoke it. Safe to repeat."""
        del request
        if not ApiKey.objects.filter(pk=pk, account=self.account_id).exists():
            raise Http404
        revoke_api_key(pk, now=self.now)
        return self.back(PAGE, "The key is refused from now on.")
