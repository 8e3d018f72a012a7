"""The plans on offer."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny

from billing import queries
from billing.models import Plan
from billing.serializers.plans import OfferedPlanSerializer


@extend_schema_view(get=extend_schema(operation_id="plans"))
class PlanList(ListAPIView[Plan]):
    """The plans on offer and their prices, for anybody: no key is needed."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    serializer_class = OfferedPlanSerializer
    pagination_class = None
    queryset = Plan.objects.none()

    def get_queryset(self) -> QuerySet[Plan]:
        """Return the plans that customers may see, with the prices in force now."""
        return queries.offered_plans(now=datetime.now(UTC))
