from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from billing.api.problems import CODES


@require_safe
def problem_codes(request: HttpRequest) -> JsonResponse:
    """Return every code that a problem may have, and what it says."""
    del request
    return JsonResponse({"codes": dict(CODES)})
