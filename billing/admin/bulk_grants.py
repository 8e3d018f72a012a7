"""The page on which credit is granted out of a file: first shown, then granted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminFileFieldWidget

from billing import services
from billing.admin.asking import WithButtons, change_url
from billing.admin.sealing import SealBrokenError, Sealed, seal, unseal
from billing.bulk_credits import GRANTS
from billing.models import CreditGrant
from billing.sheets import SheetRefusedError
from metering.pages import ModelAdmin, Page

A = TypeVar("A", bound=ModelAdmin[Any])

RIGHT = "billing.add_creditgrant"
PURPOSE = "grants"
HEADERS = (
    "Row",
    "What it does",
    "Account",
    "Kind",
    "Amount",
    "Reason",
    "Reference",
    "Expires at",
    "Priority",
)
MOST_SHOWN = 60
"""So many characters of a cell the page shows."""


def list_button(
    description: str, *, right: str, icon: str = ""
) -> Callable[[Callable[[A, HttpRequest], HttpResponse]], Callable[..., HttpResponse]]:
    """Make a method a button above a list, for who has the right."""

    def decorate(method: Callable[[A, HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
        @wraps(method)
        def view(page: A, request: HttpRequest) -> HttpResponse:
            if not request.user.has_perm(right):
                raise PermissionDenied
            return method(page, request)

        # Where unfold looks for them.
        view.__dict__.update(
            short_description=description,
            right=right,
            allowed_permissions=(right.replace(".", "_"),),
            attrs={},
            icon=icon,
            variant=ActionVariant.DEFAULT,
        )
        return view

    return decorate


class FileForm(forms.Form):
    """Which file."""

    file = forms.FileField(
        label="File",
        help_text=f"CSV in UTF-8 with commas; at most {GRANTS.most_rows:,} rows and "
        f"{GRANTS.most_bytes:,} bytes.",
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,text/csv"}),
    )

    def clean_file(self) -> UploadedFile[Any]:
        """Return the file. Raises ValidationError for one that is not worth reading."""
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if (file.size or 0) > GRANTS.most_bytes:
            raise forms.ValidationError(
                f"The file has {file.size:,} bytes; {GRANTS.most_bytes:,} is the most. Split it."
            )
        return file


class GrantsInBulk(WithButtons, Page[CreditGrant]):
    """The list's button that grants out of a file."""

    actions_list: Sequence[str] = ("grant_from_file",)

    @list_button("Grant from a file", right=RIGHT, icon="upload_file")
    def grant_from_file(self, request: HttpRequest) -> HttpResponse:
        """Show what a file would grant; on a yes to that, grant it."""
        user_id = request.user.pk or 0
        form, plan, error = FileForm(), None, ""
        content = b""
        if request.method == "POST" and "sealed" in request.POST:
            try:
                sealed = unseal(request.POST["sealed"], purpose=PURPOSE, user_id=user_id)
                content = sealed.content
                return self._granted(request, sealed)
            except (SealBrokenError, SheetRefusedError) as refused:
                error = str(refused)
            except services.BulkRefusedError as refused:
                error, plan = str(refused), refused.plan
        elif request.method == "POST":
            form = FileForm(request.POST, request.FILES)
            if form.is_valid():
                content = form.cleaned_data["file"].read()
                try:
                    plan = services.plan_grants(content, now=datetime.now(UTC))
                except SheetRefusedError as refused:
                    form.add_error("file", str(refused))
        context = {
            **self.admin_site.each_context(request),
            "title": "Grant credit from a file",
            "opts": self.opts,
            "form": form,
            "media": self.media + form.media,
            "columns": ", ".join(GRANTS.columns),
            "headers": HEADERS,
            "back": reverse("admin:billing_creditgrant_changelist"),
            "error": error,
        }
        if plan:
            shown = Sealed(content, plan.digest)
            context |= {
                "plan": plan,
                "rows": [_shown(row) for row in plan.rows],
                "totals": plan.totals(),
                "sealed": seal(shown, purpose=PURPOSE, user_id=user_id) if plan.is_clean else "",
            }
        return TemplateResponse(request, "admin/billing/bulk_grants.html", context)

    def _granted(self, request: HttpRequest, sealed: Sealed) -> HttpResponse:
        plan = services.grant_in_bulk(
            sealed.content,
            shown=sealed.shown,
            now=datetime.now(UTC),
            granted_by_id=request.user.pk,
        )
        for total in plan.totals():
            messages.success(
                request,
                f"{total.new} granted in {total.new_count:,} credits; {total.granted} in "
                f"{total.granted_count:,} were granted already.",
            )
        return HttpResponseRedirect(reverse("admin:billing_creditgrant_changelist"))


def _shown(row: services.PlannedGrant) -> dict[str, Any]:
    cells = {
        name: cell if len(cell) <= MOST_SHOWN else f"{cell[:MOST_SHOWN]}…"
        for name, cell in row.cells.items()
    }
    return {
        "number": row.number,
        "outcome": row.outcome,
        "account": row.account.name if row.account else "",
        "account_url": change_url(row.account) if row.account else "",
        "amount": str(row.amount or ""),
        "expires_at": row.grant.expires_at if row.grant else None,
        "cells": cells,
        "faults": row.faults,
    }
