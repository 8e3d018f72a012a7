"""An account's members on its page. The services keep it an owner, and take invitations back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.http import HttpRequest

from billing import services
from billing.models import Account, Membership
from metering.pages import Page, TabularInline


class MembershipRows(TabularInline[Membership, Account]):
    """The account's users."""

    model = Membership
    hide_title = True
    extra = 0
    autocomplete_fields = ("user",)


class SavesMembers(Page[Account]):
    """A page of an account whose members are changed as they would change each other."""

    def save_formset(
        self, request: HttpRequest, form: forms.ModelForm[Account], formset: Any, change: Any
    ) -> None:
        """Add members first, so that who is to follow the last owner is there before they go.

        Raises MemberRefusedError.
        """
        if formset.model is not Membership:
            super().save_formset(request, form, formset, change)
            return
        formset.save(commit=False)
        now, account_id = datetime.now(UTC), form.instance.pk
        by = services.Actor(Membership.Role.OWNER, request.user.pk)
        for member in formset.new_objects:
            member.save(force_insert=True)
        gone = [member.pk for member in formset.deleted_objects]
        for member, fields in formset.changed_objects:
            if "user" in fields:
                # Somebody else comes, and who was there goes.
                gone.append(member.pk)
                member.pk = None
                member.save(force_insert=True)
            else:
                services.change_role(
                    account_id, member.pk, role=Membership.Role(member.role), by=by, now=now
                )
        for member_id in gone:
            services.remove_member(account_id, member_id, by=by, now=now)
