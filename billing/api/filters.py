"""What narrows lists: by values that a column may have, and by spans of time, `[from, to)`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.forms import CharField
from django_filters import rest_framework as filters
from django_filters.fields import IsoDateTimeField

from billing.credits import CreditKind
from billing.models import CreditEntry, Delivery, EventType, Invoice
from billing.models.outgoing import WAITING
from metering.labels import LONGEST_VALUE, LabelNameError, require_label_name
from metering.sandboxes import that_ran, that_run, with_label

LONGEST_NUMBER = 32
LONGEST_LABEL = 64 + LONGEST_VALUE
DELIVERY_STATES: Mapping[str, Q] = {
    "waiting": WAITING,
    "delivered": Q(delivered_at__isnull=False),
    "given_up": Q(given_up_at__isnull=False),
}


class MomentField(IsoDateTimeField):  # type: ignore[misc]  # django-filter has no types
    """A time, which UTC can tell too."""

    def to_python(self, value: Any) -> datetime | None:
        """Return the time in UTC. Raises ValidationError."""
        read = super().to_python(value)
        try:
            return None if read is None else read.astimezone(UTC)
        except OverflowError:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class MomentFilter(filters.IsoDateTimeFilter):  # type: ignore[misc]  # django-filter has no types
    """Rows whose time is from, or before, the one that is given."""

    field_class = MomentField


def since(field: str, help_text: str) -> MomentFilter:
    """Return the filter of rows whose `field` is at a time or later."""
    return MomentFilter(field, "gte", help_text=help_text)


def before(field: str, help_text: str) -> MomentFilter:
    """Return the filter of rows whose `field` is before a time."""
    return MomentFilter(field, "lt", help_text=help_text)


class InvoiceFilter(filters.FilterSet):  # type: ignore[misc]  # django-filter has no types
    """Of invoices."""

    status = filters.MultipleChoiceFilter(
        choices=Invoice.Status.choices, distinct=False, help_text="One of these; repeat it."
    )
    kind = filters.ChoiceFilter(choices=Invoice.Kind.choices)
    number = filters.CharFilter(max_length=LONGEST_NUMBER, help_text="As it is printed.")
    period_start_from = since("period_start", "Its period starts then or later.")
    period_start_to = before("period_start", "Its period starts before then.")
    period_end_from = since("period_end", "Its period ends then or later.")
    period_end_to = before("period_end", "Its period ends before then.")


class CreditEntryFilter(filters.FilterSet):  # type: ignore[misc]  # django-filter has no types
    """Of the credit ledger's entries."""

    kind = filters.MultipleChoiceFilter(
        choices=CreditEntry.Kind.choices, distinct=False, help_text="One of these; repeat it."
    )
    grant_kind = filters.ChoiceFilter(
        field_name="grant__kind", choices=[(kind.value, kind.value) for kind in CreditKind]
    )
    recorded_from = since("recorded_at", "It was recorded then or later.")
    recorded_to = before("recorded_at", "It was recorded before then.")


class EventFilter(filters.FilterSet):  # type: ignore[misc]  # django-filter has no types
    """Of events."""

    type = filters.MultipleChoiceFilter(
        choices=EventType.choices, distinct=False, help_text="One of these; repeat it."
    )
    timestamp_from = since("created_at", "It was written then or later.")
    timestamp_to = before("created_at", "It was written before then.")


class DeliveryFilter(filters.FilterSet):  # type: ignore[misc]  # django-filter has no types
    """Of deliveries."""

    state = filters.ChoiceFilter(
        choices=[(state, state) for state in DELIVERY_STATES], method="in_state"
    )

    def in_state(self, rows: QuerySet[Delivery], name: str, state: str) -> QuerySet[Delivery]:
        """Return the deliveries of which that became."""
        del name
        return rows.filter(DELIVERY_STATES[state])


class LabelField(CharField):
    """`NAME=VALUE`, or `NAME` for any value."""

    def to_python(self, value: Any) -> Any:
        """Return the name and the value, None for any. Raises ValidationError."""
        text = super().to_python(value)
        if not text:
            return None
        name, equals, wanted = text.partition("=")
        try:
            require_label_name(name)
        except LabelNameError as error:
            # Formatted once more later, and what was sent may hold a %.
            raise ValidationError("%(why)s", "invalid", {"why": str(error)}) from None
        return name, wanted if equals else None


class LabelFilter(filters.CharFilter):  # type: ignore[misc]  # django-filter has no types
    """Sandboxes whose newest start has a label."""

    field_class = LabelField

    def filter(self, queryset: Any, value: tuple[str, str | None] | None) -> Any:
        """Return those that have it."""
        return queryset if value is None else with_label(queryset, *value)


class SandboxFilter(filters.FilterSet):  # type: ignore[misc]  # django-filter has no types
    """Of sandboxes."""

    state = filters.ChoiceFilter(
        choices=[("running", "running"), ("ended", "ended")], method="in_state"
    )
    label = LabelFilter(
        max_length=LONGEST_LABEL,
        help_text="NAME=VALUE, or NAME for any value; of its newest start.",
    )
    seen_from = MomentFilter(method="as_seen", help_text="It ran then or later.")
    seen_to = MomentFilter(method="as_seen", help_text="It ran before then.")

    def in_state(self, queryset: Any, name: str, value: str) -> Any:
        """Return those that run, or those that do not."""
        del name
        return that_run(queryset, run=value == "running")

    def as_seen(self, queryset: Any, name: str, value: datetime) -> Any:
        """Return the sandboxes; the two bounds are of one span, and are looked at together."""
        del name, value
        return queryset

    def filter_queryset(self, queryset: Any) -> Any:
        """Return the sandboxes that are asked for."""
        asked = self.form.cleaned_data
        found = super().filter_queryset(queryset)
        if asked["seen_from"] or asked["seen_to"]:
            found = that_ran(found, start=asked["seen_from"], end=asked["seen_to"])
        return found
