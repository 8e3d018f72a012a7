from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import User
from django.forms import ChoiceField, EmailField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from billing.api.callers import CHOSEN_ACCOUNT, Scope
from billing.models import Invitation, Membership
from billing.services import (
    Actor,
    MemberRefusedError,
    change_role,
    invite,
    members_of,
    open_invitations,
    remove_member,
    withdraw_invitation,
)
from soulbox.portal.forms import PortalForm, refuse
from soulbox.portal.pages import MemberView

PAGE = "portal:members"
ROLES = [
    (Membership.Role.VIEWER.value, "Viewer: reads"),
    (Membership.Role.BILLING.value, "Billing: plan, payment methods, budgets too"),
    (Membership.Role.OWNER.value, "Owner: members, keys and closing too"),
]


class InviteForm(PortalForm):
    """Who is invited, as what."""

    email = EmailField(label="E-mail address", max_length=150)
    role = ChoiceField(label="Role", choices=ROLES)


class RoleForm(PortalForm):
    """What a member becomes."""

    role = ChoiceField(label="Role", choices=ROLES)


class Members(MemberView):
    """Who belongs to the account, and who is invited."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them."""
        del request
        return self.shown(InviteForm())

    def shown(self, form: InviteForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page(
            "portal/members.html",
            form=form,
            roles=ROLES,
            members=members_of(self.account_id),
            invitations=open_invitations(self.account_id, now=self.now),
        )

    @property
    def actor(self) -> Actor:
        """Who acts."""
        return Actor(Membership.Role(self.membership.role), self.user.pk)


class MemberInvite(Members):
    """Invites somebody by mail. Asking again sends another invitation in place of the first."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Write the invitation."""
        form = InviteForm(request.POST)
        if form.is_valid():
            asked = form.cleaned_data
            try:
                invite(
                    self.account_id,
                    email=asked["email"],
                    role=Membership.Role(asked["role"]),
                    by=self.actor,
                    now=self.now,
                )
            except MemberRefusedError as refusal:
                refuse(form, str(refusal))
            else:
                return self.back(PAGE, f"{asked['email']} is invited by mail, for a week.")
        return self.shown(form)


class MemberRole(Members):
    """Gives a member another role."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Change it. Safe to repeat."""
        form = RoleForm(request.POST)
        if not form.is_valid():
            raise Http404
        role = Membership.Role(form.cleaned_data["role"])
        try:
            member = change_role(self.account_id, pk, role=role, by=self.actor, now=self.now)
        except Membership.DoesNotExist:
            raise Http404 from None
        except MemberRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.back(PAGE, f"{_name(member.user)} is {role} now.")


class MemberRemove(Members):
    """Takes somebody out of the account."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Remove them. Another account's member is not found."""
        del request
        if not members_of(self.account_id).filter(pk=pk).exists():
            raise Http404
        try:
            remove_member(self.account_id, pk, by=self.actor, now=self.now)
        except MemberRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.back(PAGE, "They see the account no longer.")


class MemberLeave(Members):
    """Leaves the account; anybody may, but the last owner."""

    needs = {"POST": Scope.READ}
    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Leave, and go on with another account if there is one."""
        try:
            remove_member(self.account_id, self.membership.pk, by=self.actor, now=self.now)
        except MemberRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        request.session.pop(CHOSEN_ACCOUNT, None)
        return redirect("portal:overview")


class InvitationWithdraw(Members):
    """Takes an invitation back."""

    needs = {"POST": Scope.ADMIN}
    http_method_names = ("post",)

    def post(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Let it be accepted no longer. Safe to repeat."""
        del request
        try:
            gone = withdraw_invitation(self.account_id, pk, by=self.actor, now=self.now)
        except Invitation.DoesNotExist:
            raise Http404 from None
        except MemberRefusedError as refusal:
            return self.back(PAGE, str(refusal), is_error=True)
        return self.back(PAGE, f"The invitation of {gone.email} is taken back.")


def _name(user: User) -> str:
    return user.get_full_name() or user.email or user.get_username()
