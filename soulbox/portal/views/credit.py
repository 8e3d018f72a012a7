from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet, Sum
from django.forms import CharField, DecimalField, HiddenInput
from django.http import HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.credits import CreditKind
from billing.models import CreditEntry, CreditGrant
from billing.money import decimals_of
from billing.services import TopUpRefusedError, request_top_up, set_automatic_top_up
from soulbox.portal.forms import PortalForm, refuse
from soulbox.portal.once import claim, new_once
from soulbox.portal.pages import MemberView

A_PAGE = 50
KINDS: Mapping[str, str] = {
    CreditKind.MONTHLY: "Monthly, with the plan",
    CreditKind.PROMOTIONAL: "Promotional",
    CreditKind.PREPAID: "Prepaid",
}
ENTRIES: Mapping[str, str] = {
    CreditEntry.Kind.GRANT: "Granted",
    CreditEntry.Kind.USE: "Used",
    CreditEntry.Kind.EXPIRE: "Expired",
    CreditEntry.Kind.REVOKE: "Taken back",
    CreditEntry.Kind.REFUND: "Given back by a void invoice",
    CreditEntry.Kind.RESTORE: "There again, for late usage",
    CreditEntry.Kind.LATE_USE: "Used for late usage",
    CreditEntry.Kind.RETURN: "Returned",
    CreditEntry.Kind.TAKE_BACK: "Taken back by a void invoice",
}


class TopUpForm(PortalForm):
    """How much prepaid credit is bought."""

    once = CharField(widget=HiddenInput, max_length=64)
    amount = DecimalField(label="Amount", max_digits=12, decimal_places=4)


class AutomaticForm(PortalForm):
    """When prepaid credit is bought by itself, and how much."""

    threshold = DecimalField(
        label="When less is left than",
        max_digits=12,
        decimal_places=4,
        min_value=0,
        required=False,
        help_text="Leave both empty to buy none by itself.",
    )
    top_up = DecimalField(label="Buy", max_digits=12, decimal_places=4, min_value=0, required=False)


class Credits(MemberView):
    """What credit there is, and what became of it."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show credit, entries, and how more is bought."""
        return self.shown(request)

    def shown(self, request: HttpRequest, **forms: PortalForm) -> HttpResponse:
        """Return the page, with a form that was refused in place of a fresh one."""
        entries = _entries(self).select_related("grant", "invoice").order_by("-pk")
        page = Paginator(entries, A_PAGE).get_page(request.GET.get("page"))
        automatic = {
            "threshold": _plain(self.account.top_up_threshold, self.account.currency),
            "top_up": _plain(self.account.top_up_amount, self.account.currency),
        }
        shown: dict[str, Any] = {
            "top_up_form": TopUpForm(initial={"once": new_once()}),
            "automatic_form": AutomaticForm(initial=automatic),
            **forms,
        }
        waiting = self.account.top_ups.filter(grant__isnull=True, given_up_at__isnull=True)
        return self.page(
            "portal/credits.html",
            currency=self.account.currency,
            grants=[(grant, KINDS[grant.kind], balance) for grant, balance in _grants(self)],
            entries=page,
            told=[(entry, ENTRIES[entry.kind], KINDS[entry.grant.kind]) for entry in page],
            waiting=waiting,
            **shown,
        )


class BuyCredit(Credits):
    """Asks for prepaid credit: charged at once, there once it is paid."""

    needs = {"POST": Scope.WRITE}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Ask for it, once for a form."""
        form = TopUpForm(request.POST)
        if form.is_valid():
            if not claim(self.account_id, "top-up", form.cleaned_data["once"]):
                return self.back("portal:credits", "The credit was asked for already.")
            try:
                request_top_up(self.account_id, form.cleaned_data["amount"], now=self.now)
            except TopUpRefusedError as refusal:
                refuse(form, str(refusal))
            else:
                told = "The credit is there as soon as it is paid, which is tried in a moment."
                return self.back("portal:credits", told)
        # What was refused is sent again with another amount: that is another form.
        form.data = {**request.POST.dict(), "once": new_once()}
        return self.shown(request, top_up_form=form)


class BuyCreditByItself(Credits):
    """Buys prepaid credit whenever little is left, or no longer."""

    needs = {"POST": Scope.WRITE}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep it. Safe to repeat."""
        form = AutomaticForm(request.POST)
        if form.is_valid():
            threshold, amount = form.cleaned_data["threshold"], form.cleaned_data["top_up"]
            try:
                set_automatic_top_up(self.account_id, threshold=threshold, amount=amount)
            except TopUpRefusedError as refusal:
                refuse(form, str(refusal))
            else:
                told = "No credit is bought by itself." if amount is None else "That is kept."
                return self.back("portal:credits", told)
        return self.shown(request, automatic_form=form)


def _grants(view: MemberView) -> list[tuple[CreditGrant, Decimal]]:
    """Return the credit that is there or comes, with what is left of it."""
    grants = (
        CreditGrant.objects.filter(account=view.account_id)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=view.now))
        .annotate(balance=Sum("entries__amount"))
        .filter(balance__gt=0)
        .order_by("expires_at", "pk")
    )
    return [(grant, grant.balance) for grant in grants]


def _entries(view: MemberView) -> QuerySet[CreditEntry]:
    return CreditEntry.objects.filter(grant__account=view.account_id)


def _plain(amount: Decimal | None, currency: str) -> str:
    return "" if amount is None else f"{amount:.{decimals_of(currency)}f}"
