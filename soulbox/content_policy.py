"""What a page may load and do: what comes from this site, and no script that stands in the page."""

from __future__ import annotations

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponseBase

# Its parts are written in attributes, which Alpine reads as code; colours and widths likewise.
ADMIN = {"script-src": [UNSAFE_EVAL], "style-src": [UNSAFE_INLINE], "img-src": ["data:"]}
# Swagger UI draws with styles of its own.
DOCUMENT = {"style-src": [UNSAFE_INLINE], "img-src": ["data:"]}

LOOSER = {"/admin/": ADMIN, "/api/docs/": DOCUMENT}
"""What pages below an address may beside what every page may."""

STRICT = {
    "default-src": ["'none'"],
    "script-src": [SELF],
    "style-src": [SELF],
    "img-src": [SELF],
    "font-src": [SELF],
    "connect-src": [SELF],
    "form-action": [SELF],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}


class ContentPolicy(CSPMiddleware):
    """Sends STRICT with every page, and more where other people's pages need it."""

    def get_policy_parts(
        self,
        request: HttpRequest,
        response: HttpResponseBase,
        report_only: bool = False,  # noqa: FBT001, FBT002 - as its base has it
    ) -> PolicyParts:
        """Return what the page's policy is made of."""
        parts = super().get_policy_parts(request, response, report_only)
        for path, more in LOOSER.items():
            if request.path.startswith(path):
                parts.update = {**(parts.update or {}), **more}
        return parts
