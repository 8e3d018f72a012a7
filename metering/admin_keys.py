from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget

from metering.keys import (
    KeyRefusedError,
    check_metering_key,
    issue_metering_key,
    revoke_metering_key,
)
from metering.models import MeteringKey
from metering.pages import ModelForm, Page


class MeteringKeyForm(ModelForm[MeteringKey]):
    """What a person says of a new key; its secret is shown when it is saved."""

    host_name = forms.CharField(
        max_length=64,
        label="Host",
        help_text="What its samples are of. Made if there is none of the name.",
        widget=UnfoldAdminTextInputWidget,
    )
    scopes = forms.MultipleChoiceField(
        choices=MeteringKey.Scope.choices,
        initial=[MeteringKey.Scope.SAMPLES],
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = MeteringKey
        fields = ("name", "account", "scopes")
        widgets = {"name": UnfoldAdminTextInputWidget}
        help_texts = {"account": "The only account it may speak of. Empty: every account."}

    def clean(self) -> dict[str, Any]:
        """Return what was said. Raises ValidationError at the field that is refused."""
        said = super().clean() or self.cleaned_data
        if self.errors:
            return said
        try:
            check_metering_key(**_arguments(said))
        except KeyRefusedError as error:
            field = "host_name" if error.field == "host" else error.field
            raise forms.ValidationError({field: error.detail}) from None
        return said


def _arguments(said: dict[str, Any]) -> dict[str, Any]:
    account = said["account"]
    return {
        "name": said["name"],
        "host_name": said["host_name"],
        "scopes": said["scopes"],
        "account_id": account and account.pk,
    }


@admin.register(MeteringKey)
class MeteringKeyAdmin(Page[MeteringKey]):
    """Runtimes' keys to the sample API. A new one is shown once, when it is added."""

    form = MeteringKeyForm

    list_display = (
        "name",
        "prefix",
        "host",
        "account",
        "scopes",
        "created_at",
        "last_used_at",
        "revoked_at",
    )
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "host")
    list_select_related = ("host", "account")
    search_fields = ("name", "prefix", "host__name", "account__account_id")
    autocomplete_fields = ("account",)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: MeteringKey | None = None) -> tuple[str, ...]:
        """Return what is asked of a new key, and what is known of one that was issued."""
        del request
        if obj is None:
            return ("name", "host_name", "account", "scopes")
        return self.list_display

    def has_change_permission(self, request: HttpRequest, obj: MeteringKey | None = None) -> bool:
        """Return that nobody changes a key: revoke it, and issue another."""
        del request, obj
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Return whether the user's own rights let them change keys."""
        return request.user.has_perm("metering.change_meteringkey")

    def save_model(
        self, request: HttpRequest, obj: MeteringKey, form: ModelForm[MeteringKey], change: Any
    ) -> None:
        """Issue the key through the service."""
        del request, change
        issued = issue_metering_key(**_arguments(form.cleaned_data), now=datetime.now(UTC))
        # The admin goes on with the object it made: bring that up to what was saved. The key
        # itself goes along to the page that shows it, and no further.
        vars(obj).update(vars(issued.row), issued_key=issued.key)

    def response_add(
        self, request: HttpRequest, obj: MeteringKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the new key on a page of its own, this once."""
        del post_url_continue
        context = {
            **self.admin_site.each_context(request),
            "title": "New metering key",
            "row": obj,
            "key": vars(obj)["issued_key"],
        }
        # Not a message: those travel in a cookie. The admin lets no page of its own be kept.
        return TemplateResponse(request, "admin/metering/metering_key_issued.html", context)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, metering_keys: QuerySet[MeteringKey]) -> None:
        """Refuse the keys from now on."""
        now = datetime.now(UTC)
        for metering_key in metering_keys:
            revoke_metering_key(metering_key.pk, now=now)
        self.message_user(request, "Revoked.", messages.SUCCESS)
