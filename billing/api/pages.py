"""Pages of lists, each beginning where the last one ended, whatever was added meanwhile."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from billing.api.problems import Problem

MOST_ROWS = 1000


class Pages(CursorPagination):
    """50 rows a page, or `page_size` of them up to 1,000; in the order that the view names."""

    page_size = 50
    max_page_size = MOST_ROWS
    page_size_query_param = "page_size"

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """Return one page. Raises Problem for a cursor that no page of ours gave."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (NotFound, ValueError, ValidationError, OverflowError):
            raise Problem(HTTPStatus.BAD_REQUEST, "cursor_invalid") from None

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the query parameters as the document shows them."""
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            if parameter["name"] == self.page_size_query_param:
                parameter["schema"] |= {
                    "minimum": 1,
                    "maximum": self.max_page_size,
                    "default": self.page_size,
                }
        return parameters

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor that is shown. Raises NotFound for one that no page gave."""
        cursor = super().decode_cursor(request)
        if cursor is not None and "\x00" in str(cursor.position):
            # No text in the database has one, and it takes none.
            raise NotFound
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of a page, with addresses as ours are."""
        page: dict[str, Any] = super().get_paginated_response_schema(schema)
        for name in ("next", "previous"):
            page["properties"][name] = {
                "type": ["string", "null"],
                "format": "uri",
                "description": f"Where the {name} page is; null: nowhere.",
                # Lists' examples are completed by it.
                "example": f"https://billing.example.com/api/v1/...?cursor={name}",
            }
        return page

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        """Return the view's order, whose last column tells every two rows apart."""
        del request, queryset
        ordering: tuple[str, ...] = view.ordering
        return ordering

    def get_page_size(self, request: Request) -> int:
        """Return how many rows a page has. Raises Problem where that is no number of rows."""
        asked = request.query_params.get(self.page_size_query_param)
        if asked is None:
            return self.page_size
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= self.max_page_size):
            raise Problem(HTTPStatus.BAD_REQUEST, "page_size_invalid")
        return int(asked)
