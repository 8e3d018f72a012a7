"""Payment methods. Card numbers go from the browser to Stripe's page, and never to us."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from billing.api.callers import Scope
from payments.models import Customer, PaymentMethod
from payments.provider import ProviderError
from payments.services.method_changes import (
    MethodRefusedError,
    NoSuchMethodError,
    choose_default,
    leads_back,
    portal_url,
    remove_method,
)
from payments.services.methods import take_methods
from payments.services.providing import is_set_up
from payments.tasks import hurry_account
from soulbox.portal.mailing import site_of
from soulbox.portal.pages import MemberView

PAGE = "portal:payment-methods"


class Methods(MemberView):
    """What the account can be charged on."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them. Who comes back from Stripe's page sees at once what was done there."""
        if "back" in request.GET and self.may(Scope.WRITE):
            return self._take()
        methods = PaymentMethod.objects.filter(account=self.account_id, removed_at__isnull=True)
        return self.page("portal/methods.html", methods=methods, is_set_up=is_set_up())

    def _take(self) -> HttpResponse:
        customer = Customer.objects.filter(pk=self.account_id, provider_id__isnull=False).first()
        try:
            if customer:
                take_methods(str(customer.provider_id), now=self.now)
                hurry_account(self.account_id)
        except ProviderError:
            # An event tells of it too, a little later.
            told = "Stripe does not answer. What you did there shows up here in a minute."
            return self.back(PAGE, told, is_error=True)
        return self.back(PAGE, "The payment methods are up to date.")


class MethodAdd(MemberView):
    """Leads to Stripe's page, where a payment method is added."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest) -> HttpResponse:
        """Show the way there: a form may not lead to another site by itself."""
        back = f"{site_of(request)}{reverse(PAGE)}?back=1"
        try:
            # Where this site is not the one that PAYMENTS_RETURN_URL names, it leads back there.
            url = portal_url(
                self.account_id, return_url=back if leads_back(back) else "", now=self.now
            )
        except MethodRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.page("portal/method_add.html", url=url)


class MethodDefault(MemberView):
    """Charges a payment method from now on."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Choose it. Safe to repeat."""
        del request
        _find(self, pk)
        try:
            method = choose_default(self.account_id, pk, now=self.now)
            hurry_account(self.account_id)
        except NoSuchMethodError:
            raise Http404 from None
        except MethodRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.back(PAGE, f"{_name(method)} is charged from now on.")


class MethodRemove(MemberView):
    """Removes a payment method; not the only one while an invoice is not paid."""

    needs = {"POST": Scope.WRITE}

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Remove it."""
        del request
        _find(self, pk)
        try:
            remove_method(self.account_id, pk, now=self.now)
        except NoSuchMethodError:
            raise Http404 from None
        except MethodRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.back(PAGE, "The payment method is removed.")


def _find(view: MemberView, method_id: int) -> None:
    """Raise Http404 unless it is the account's, whether or not Stripe is set up."""
    own = PaymentMethod.objects.filter(account=view.account_id, removed_at__isnull=True)
    if not own.filter(pk=method_id).exists():
        raise Http404


def _name(method: PaymentMethod) -> str:
    return f"{(method.brand or method.kind).title()} ending in {method.last4}"
