"""What the account means to spend in a billing period, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.problems import Problem, conflict, field_problem
from billing.api.views import AccountListView, AccountView
from billing.models import Budget, BudgetCap
from billing.serializers.budgets import BudgetSerializer, BudgetTermsSerializer
from billing.services import (
    AccountClosingError,
    BudgetChange,
    BudgetRefusedError,
    change_budget,
    create_budget,
    remove_budget,
)


class Budgets(AccountListView[Budget]):
    """The account's budgets."""

    serializer_class = BudgetSerializer
    queryset = Budget.objects.none()
    ordering = ("name", "id")

    def get_queryset(self) -> QuerySet[Budget]:
        """Return the budgets of the caller's account and of no other."""
        return _budgets_of(self)

    @extend_schema(operation_id="budgets", responses=BudgetSerializer(many=True))
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the budgets by name, with what was spent when each was last looked at."""
        return super().get(request, *args, **path)

    @extend_schema(
        operation_id="budget_create",
        request=BudgetTermsSerializer,
        responses={201: BudgetSerializer},
        examples=[
            OpenApiExample(
                "A hard cap",
                value={
                    "name": "Sandboxes",
                    "amount": "500.00",
                    "thresholds": [50, 80, 100],
                    "alert_amounts": ["300.00"],
                    "hard_cap": True,
                },
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Keep another budget. With `hard_cap`, sandboxes are stopped when all of it is spent."""
        asked = BudgetTermsSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        terms = BudgetChange(**asked.validated_data)
        budget = _refused_in_words(lambda: create_budget(self.account_id, terms))
        return Response(_shown(self, budget.pk), HTTPStatus.CREATED)


class BudgetDetail(AccountView):
    """One budget. Another account's is not found."""

    @extend_schema(operation_id="budget", responses=BudgetSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Return the budget."""
        del request
        return Response(_shown(self, pk))

    @extend_schema(
        operation_id="budget_change",
        request=BudgetTermsSerializer(partial=True),
        responses=BudgetSerializer,
        examples=[OpenApiExample("More", value={"amount": "800.00"}, request_only=True)],
    )
    def patch(self, request: Request, pk: int) -> Response:
        """Change what is given. A cap that does not hold any more is lifted. Safe to repeat."""
        asked = BudgetTermsSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        change = BudgetChange(**asked.validated_data)
        now = datetime.now(UTC)
        _refused_in_words(lambda: change_budget(self.account_id, pk, change, now=now))
        return Response(_shown(self, pk))

    @extend_schema(operation_id="budget_remove", responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Compare the budget no more, and lift its cap."""
        del request
        now = datetime.now(UTC)
        _refused_in_words(lambda: remove_budget(self.account_id, pk, now=now))
        return Response(status=HTTPStatus.NO_CONTENT)


def _budgets_of(view: AccountView) -> QuerySet[Budget]:
    newest = (
        BudgetCap.objects.filter(account=view.account_id)
        .order_by("budget_id", "-capped_at", "-pk")
        .distinct("budget_id")
        .select_related("account")
    )
    return (
        Budget.objects.filter(account=view.account_id)
        .select_related("account", "state")
        .prefetch_related(Prefetch("caps", newest, to_attr="newest_caps"))
    )


def _shown(view: AccountView, budget_id: int) -> dict[str, Any]:
    """Return what is said of a budget. Raises NotFound."""
    budget = _budgets_of(view).filter(pk=budget_id).first()
    if budget is None:
        raise NotFound
    return dict(BudgetSerializer(budget).data)


def _refused_in_words(do: Callable[[], Any]) -> Any:
    """Return what the service does. Raises NotFound, Problem or ValidationError."""
    try:
        return do()
    except Budget.DoesNotExist:
        raise NotFound from None
    except AccountClosingError as error:
        raise Problem(HTTPStatus.CONFLICT, "account_closed", str(error)) from None
    except BudgetRefusedError as refusal:
        if refusal.field:
            raise field_problem(refusal.field, str(refusal)) from None
        raise conflict(str(refusal)) from None
