"""Where the account's events are sent. A secret is shown once, as an API key is."""

from __future__ import annotations

from uuid import UUID

from django.forms import CharField, CheckboxSelectMultiple, HiddenInput, MultipleChoiceField
from django.http import Http404, HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.models import EventType, WebhookEndpoint
from billing.models.outgoing import LONGEST_URL
from billing.services.webhook_endpoints import (
    WebhookRefusedError,
    add_endpoint,
    refuse_url,
    remove_endpoint,
    rotate_secret,
)
from soulbox.portal.forms import PortalForm
from soulbox.portal.once import claim, new_once
from soulbox.portal.pages import MemberView

PAGE = "portal:webhooks"
SHOWN_ALREADY = "The secret was made and shown already. Where you did not keep it, rotate it."
_TYPES = [(kind.value, kind.label) for kind in EventType if kind != EventType.PING]


class EndpointForm(PortalForm):
    """Where events go, and which."""

    once = CharField(widget=HiddenInput, max_length=64)
    url = CharField(
        label="Address", max_length=LONGEST_URL, help_text="As in https://example.com/soulbox."
    )
    event_types = MultipleChoiceField(
        label="Events",
        choices=_TYPES,
        required=False,
        widget=CheckboxSelectMultiple,
        help_text="Without a choice, all of them.",
    )


class Webhooks(MemberView):
    """The account's endpoints."""

    needs = {"GET": Scope.ADMIN}

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them."""
        del request
        return self.shown(EndpointForm(initial={"once": new_once()}))

    def shown(self, form: EndpointForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page(
            "portal/webhooks.html", form=form, endpoints=self.endpoints, once=new_once()
        )

    @property
    def endpoints(self) -> list[WebhookEndpoint]:
        """Those that were not removed."""
        return list(WebhookEndpoint.objects.filter(account=self.account_id, removed_at=None))

    def require(self, endpoint_id: UUID) -> None:
        """Raise Http404 unless the endpoint is the account's."""
        if endpoint_id not in {endpoint.pk for endpoint in self.endpoints}:
            raise Http404


class WebhookCreate(Webhooks):
    """Sends events to an address from now on."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make the endpoint, once for a form, and show its secret."""
        form = EndpointForm(request.POST)
        if form.is_valid():
            asked = form.cleaned_data
            try:
                # It looks the host up: outside of any transaction.
                refuse_url(asked["url"])
                if not claim(self.account_id, "webhook", asked["once"]):
                    return self.back(PAGE, SHOWN_ALREADY, is_error=True)
                issued = add_endpoint(
                    self.account_id,
                    url=asked["url"],
                    event_types=[EventType(kind) for kind in asked["event_types"]],
                    now=self.now,
                )
            except WebhookRefusedError as refusal:
                form.add_error(refusal.field or None, str(refusal))
            else:
                return self.page("portal/secret.html", what="signing secret", secret=issued.secret)
        return self.shown(form)


class WebhookRotate(Webhooks):
    """Gives an endpoint a new secret; for a day what is sent is signed with both."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Rotate it, once for a form."""
        self.require(pk)
        if not claim(self.account_id, f"rotate-{pk}", request.POST.get("once", "")):
            return self.back(PAGE, SHOWN_ALREADY, is_error=True)
        issued = rotate_secret(pk, now=self.now)
        until = "For a day, events are signed with the old one too."
        return self.page(
            "portal/secret.html", what="signing secret", secret=issued.secret, until=until
        )


class WebhookRemove(Webhooks):
    """Sends nothing to an address any more."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Remove the endpoint."""
        del request
        self.require(pk)
        remove_endpoint(pk, now=self.now)
        return self.back(PAGE, "Nothing is sent there any more.")
