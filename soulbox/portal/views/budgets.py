from __future__ import annotations

from decimal import Decimal

from django.contrib.postgres.forms import SimpleArrayField
from django.db.models import QuerySet
from django.forms import BooleanField, CharField, DecimalField, IntegerField
from django.http import Http404, HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.models import Budget
from billing.models.messages import MOST_PERCENT, default_thresholds
from billing.money import MOST_DECIMALS, decimals_of
from billing.services import (
    BudgetChange,
    BudgetRefusedError,
    change_budget,
    create_budget,
    remove_budget,
)
from billing.services.caps import OPEN
from billing.services.own_budgets import LONGEST_NAME, MOST_MARKS
from soulbox.portal.forms import PortalForm
from soulbox.portal.pages import MemberView

PAGE = "portal:budgets"


class BudgetForm(PortalForm):
    """What is meant to be spent in a period, when that is told, and whether more is used."""

    name = CharField(label="Name", max_length=LONGEST_NAME)
    amount = DecimalField(
        label="Amount in a billing period", max_digits=20, decimal_places=MOST_DECIMALS
    )
    thresholds = SimpleArrayField(
        IntegerField(min_value=1, max_value=MOST_PERCENT),
        label="Told of at, in percent",
        max_length=MOST_MARKS,
        help_text="Separated by commas, as in 50,80,100.",
    )
    alert_amounts = SimpleArrayField(
        DecimalField(max_digits=20, decimal_places=MOST_DECIMALS),
        label="Told of at these amounts too",
        max_length=MOST_MARKS,
        required=False,
        help_text="Separated by commas, as in 100.00,250.00.",
    )
    hard_cap = BooleanField(
        label="Hard cap: stop all sandboxes when the whole amount is spent", required=False
    )
    is_active = BooleanField(label="Compared with what is spent", required=False)

    def change(self) -> BudgetChange:
        """Return what the form says of the budget."""
        return BudgetChange(**self.cleaned_data)


class Budgets(MemberView):
    """What the account means to spend, and a form for another budget."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them."""
        del request
        initial = {"is_active": True, "thresholds": default_thresholds()}
        return self.shown(BudgetForm(initial=initial))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep another one. A second one of the same name is refused."""
        form = BudgetForm(request.POST)
        if form.is_valid():
            try:
                create_budget(self.account_id, form.change())
            except BudgetRefusedError as refusal:
                form.add_error(refusal.field or None, str(refusal))
            else:
                return self.back(PAGE, "The budget is kept.")
        return self.shown(form)

    def shown(self, form: BudgetForm) -> HttpResponse:
        """Return the page with the form."""
        caps = {cap.budget_id: cap for cap in OPEN.filter(account=self.account_id)}
        return self.page(
            "portal/budgets.html",
            form=form,
            budgets=[(budget, caps.get(budget.pk)) for budget in self.budgets.order_by("name")],
            currency=self.account.currency,
        )

    @property
    def budgets(self) -> QuerySet[Budget]:
        """The account's."""
        return Budget.objects.filter(account=self.account_id)

    def budget(self, budget_id: int) -> Budget:
        """Return the account's budget. Raises Http404."""
        budget = self.budgets.filter(pk=budget_id).first()
        if budget is None:
            raise Http404
        return budget


class BudgetPage(Budgets):
    """One budget, to be changed or left alone. Another account's is not found."""

    needs = {"GET": Scope.WRITE, "POST": Scope.WRITE}

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:  # type: ignore[override]  # of one
        """Show its form."""
        del request
        budget = self.budget(pk)
        return self.shown_one(budget, BudgetForm(initial=self.initial(budget)))

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:  # type: ignore[override]  # of one
        """Keep what is changed. Safe to repeat."""
        budget, form = self.budget(pk), BudgetForm(request.POST)
        if form.is_valid():
            try:
                change_budget(self.account_id, pk, form.change(), now=self.now)
            except BudgetRefusedError as refusal:
                form.add_error(refusal.field or None, str(refusal))
            else:
                return self.back(PAGE, "The budget is kept.")
        return self.shown_one(budget, form)

    def initial(self, budget: Budget) -> dict[str, object]:
        """Return what the form shows of the budget."""

        def text(amount: Decimal) -> str:
            return f"{amount:.{decimals_of(self.account.currency)}f}"

        return {
            "name": budget.name,
            "amount": text(budget.amount),
            "thresholds": budget.thresholds,
            "alert_amounts": ",".join(text(amount) for amount in budget.alert_amounts),
            "hard_cap": budget.hard_cap,
            "is_active": budget.is_active,
        }

    def shown_one(self, budget: Budget, form: BudgetForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page("portal/budget.html", budget=budget, form=form)


class BudgetRemove(Budgets):
    """Takes a budget away."""

    needs = {"POST": Scope.WRITE}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:  # type: ignore[override]  # of one
        """Remove it, and lift its cap."""
        del request
        name = self.budget(pk).name
        try:
            remove_budget(self.account_id, pk, now=self.now)
        except Budget.DoesNotExist:
            raise Http404 from None
        return self.back(PAGE, f"{name} is removed.")
