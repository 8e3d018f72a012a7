"""What was said to the provider about a row, and what it answered, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from metering.pages import ReadOnlyPage
from payments.models import ProviderCall

MOST_CALLS = 300
"""So many calls a page shows, the first ones; nothing has as many."""


@dataclass(frozen=True, slots=True)
class Said:
    """One call: what it was for, what was asked, and what came back."""

    operation: str
    outcome: str
    about: str
    key: str
    times: int
    first_at: datetime
    last_at: datetime
    answered_at: datetime | None
    asked: str
    answered: str
    is_good: bool


class WithConversation(ReadOnlyPage[Any]):
    """A row's page with its calls to the provider below it, in order."""

    change_form_after_template = "admin/payments/conversation.html"
    calls_of = "collection"
    """The column of `ProviderCall` that names the row."""

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Return the page with the calls."""
        row = self.get_object(request, object_id)
        calls = list(_said(row, self.calls_of)) if row else []
        context = {**(extra_context or {}), "conversation": calls}
        return super().change_view(request, object_id, form_url, context)


def _said(row: Any, column: str) -> Iterator[Said]:
    calls = ProviderCall.objects.filter(**{column: row}).select_related("attempt")
    for call in calls.order_by("pk")[:MOST_CALLS]:
        yield Said(
            operation=call.operation,
            outcome=call.get_outcome_display(),
            about=f"attempt {call.attempt.number}" if call.attempt else "",
            key=call.key,
            times=call.times,
            first_at=call.first_at,
            last_at=call.last_at,
            answered_at=call.answered_at,
            asked=pretty(call.asked),
            answered=pretty(call.answered),
            is_good=call.outcome == ProviderCall.Outcome.DONE,
        )


def pretty(told: Mapping[str, Any]) -> str:
    """Return what was asked or answered on lines, its empty parts left out."""
    return json.dumps(_filled(told), indent=2, ensure_ascii=False) if told else ""


def _filled(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _filled(held) for name, held in told.items() if held not in (None, "", [])}
    if isinstance(told, list):
        return [_filled(held) for held in told]
    return told
