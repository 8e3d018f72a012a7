from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import services
from billing.models import OperatorKey
from metering.pages import ModelForm, Page


class OperatorKeyForm(ModelForm[OperatorKey]):
    """What a person says of a new key; its secret is shown when it is saved."""

    class Meta:
        model = OperatorKey
        fields = ("name",)
        widgets = {"name": UnfoldAdminTextInputWidget}
        help_texts = {"name": "What is done with the key is told by this name."}

    def clean_name(self) -> str:
        """Return the name. Raises ValidationError when a key in use has it."""
        name: str = self.cleaned_data["name"].strip()
        if OperatorKey.objects.filter(name=name, revoked_at__isnull=True).exists():
            raise ValidationError("A key of this name is in use. Revoke it first.")
        if not name.isprintable():
            raise ValidationError("Use printable characters.")
        return name


@admin.register(OperatorKey)
class OperatorKeyAdmin(Page[OperatorKey]):
    """Operators' keys to the routes under /admin/. A new one is shown once, when it is added."""

    form = OperatorKeyForm
    list_display = ("name", "prefix", "created_at", "last_used_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "prefix")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: OperatorKey | None = None) -> tuple[str, ...]:
        """Return what is asked of a new key, and what is known of one that was issued."""
        del request
        return ("name",) if obj is None else self.list_display

    def has_change_permission(self, request: HttpRequest, obj: OperatorKey | None = None) -> bool:
        """Return that nobody changes a key: revoke it, and issue another."""
        del request, obj
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them change keys."""
        return request.user.has_perm("billing.change_operatorkey")

    def save_model(
        self, request: HttpRequest, obj: OperatorKey, form: ModelForm[OperatorKey], change: Any
    ) -> None:
        """Issue the key through the service."""
        del request, change
        issued = services.issue_operator_key(name=form.cleaned_data["name"], now=datetime.now(UTC))
        # The admin goes on with the object it made: bring that up to what was saved. The key
        # itself goes along to the page that shows it, and no further.
        vars(obj).update(vars(issued.row), issued_key=issued.key)

    def response_add(
        self, request: HttpRequest, obj: OperatorKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the new key on a page of its own, this once."""
        del post_url_continue
        context = {
            **self.admin_site.each_context(request),
            "title": "New operator key",
            "row": obj,
            "key": vars(obj)["issued_key"],
        }
        # Not a message: those travel in a cookie, and this page must not be kept either.
        return TemplateResponse(
            request,
            "admin/billing/operator_key_issued.html",
            context,
            headers={"Cache-Control": "no-store"},
        )

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, operator_keys: QuerySet[OperatorKey]) -> None:
        """Refuse the keys from now on."""
        now = datetime.now(UTC)
        for operator_key in operator_keys:
            services.revoke_operator_key(operator_key.name, now=now)
            self.log_change(request, operator_key, "Revoked.")
        self.message_user(request, "Revoked.", messages.SUCCESS)
