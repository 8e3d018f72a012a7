from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.models import Budget
from soulbox.portal.pages import MemberView

PAGE = "portal:budgets"
MOST_BUDGETS = 50
"""Of an account."""


class BudgetForm(ModelForm):  # type: ignore[type-arg]  # Django's takes no argument at run time
    """What is meant to be spent in a period, and when that is told."""

    class Meta:
        model = Budget
        fields = ("name", "amount", "thresholds", "is_active")
        labels = {
            "amount": "Amount in a billing period",
            "thresholds": "Told of at, in percent",
            "is_active": "Compared with what is spent",
        }
        help_texts = {"thresholds": "Separated by commas, as in 50,80,100."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})


class Budgets(MemberView):
    """What the account means to spend, and a form for another budget."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them."""
        del request
        return self.shown(BudgetForm(initial={"is_active": True}))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep another one. A second one of the same name is refused."""
        form = BudgetForm(request.POST, instance=Budget(account=self.account))
        if Budget.objects.filter(account=self.account_id).count() >= MOST_BUDGETS:
            form.add_error(None, f"There are {MOST_BUDGETS} budgets. Change one of them.")
        if _kept(form):
            return self.back(PAGE, "The budget is kept.")
        return self.shown(form)

    def shown(self, form: BudgetForm) -> HttpResponse:
        """Return the page with the form."""
        budgets = Budget.objects.filter(account=self.account_id).order_by("name")
        return self.page(
            "portal/budgets.html", form=form, budgets=budgets, currency=self.account.currency
        )


class BudgetPage(MemberView):
    """One budget, to be changed or left alone. Another account's is not found."""

    needs = {"GET": Scope.WRITE, "POST": Scope.WRITE}

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show its form."""
        del request
        return self.shown(BudgetForm(instance=self.budget(pk)))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Keep what is changed. Safe to repeat."""
        form = BudgetForm(request.POST, instance=self.budget(pk))
        if _kept(form):
            return self.back(PAGE, "The budget is kept.")
        return self.shown(form)

    def budget(self, budget_id: int) -> Budget:
        """Return the account's budget. Raises Http404."""
        budget = Budget.objects.filter(account=self.account_id, pk=budget_id).first()
        if budget is None:
            raise Http404
        return budget

    def shown(self, form: BudgetForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page("portal/budget.html", form=form)


def _kept(form: BudgetForm) -> bool:
    """Save what is good. The name is the database's to compare: two forms may come at once."""
    if not form.is_valid():
        return False
    try:
        with transaction.atomic():
            form.save()
    except IntegrityError:
        form.add_error("name", "Another budget has this name.")
        return False
    return True
