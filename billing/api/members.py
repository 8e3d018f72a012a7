"""Who belongs to the account, and who is asked to. A key with the scope admin acts as an owner."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.callers import Caller, Scope
from billing.api.problems import Problem, conflict, field_problem
from billing.api.views import AccountListView, AccountView
from billing.models import Invitation, Membership
from billing.serializers.accounts import (
    InvitationSerializer,
    MemberSerializer,
    NewInvitationSerializer,
    RoleSerializer,
)
from billing.services import (
    AccountClosingError,
    Actor,
    LastOwnerError,
    MemberRefusedError,
    change_role,
    invite,
    members_of,
    open_invitations,
    remove_member,
    withdraw_invitation,
)

Role = Membership.Role
_MEMBER = OpenApiExample(
    "A member",
    value={"id": 7, "name": "Grace", "email": "grace@example.com", "role": "billing"},
    response_only=True,
)
_INVITED = OpenApiExample(
    "Invited",
    value={
        "id": "2a4e7c1c-93a8-4d3f-9b55-8f0b1c8f6c11",
        "email": "grace@example.com",
        "role": "billing",
        "invited_at": "2026-11-10T12:00:00Z",
        "expires_at": "2026-11-17T12:00:00Z",
    },
    response_only=True,
)


class Members(AccountListView[Membership]):
    """The account's members."""

    serializer_class = MemberSerializer
    ordering = ("id",)
    queryset = Membership.objects.none()

    def get_queryset(self) -> QuerySet[Membership]:
        """Return the members of the caller's account and of no other."""
        return members_of(self.account_id)

    @extend_schema(
        operation_id="members", responses=MemberSerializer(many=True), examples=[_MEMBER]
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the members, those who came first before the others."""
        return super().get(request, *args, **path)


class MemberDetail(AccountView):
    """One member. Another account's is not found."""

    needs = Scope.ADMIN

    @extend_schema(
        operation_id="member_change",
        request=RoleSerializer(partial=True),
        responses=MemberSerializer,
        examples=[OpenApiExample("Billing", value={"role": "billing"}, request_only=True), _MEMBER],
    )
    def patch(self, request: Request, pk: int) -> Response:
        """Give the member another role. The account keeps an owner. Safe to repeat."""
        member = _member_of(self, pk)
        asked = RoleSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        if "role" in asked.validated_data:
            role = Role(asked.validated_data["role"])
            now = datetime.now(UTC)
            member = _refused_in_words(
                lambda: change_role(self.account_id, pk, role=role, by=_actor(self.caller), now=now)
            )
        return Response(MemberSerializer(member).data)

    @extend_schema(operation_id="member_remove", responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Let the member see the account no longer. The account keeps an owner."""
        del request
        _member_of(self, pk)
        by, now = _actor(self.caller), datetime.now(UTC)
        _refused_in_words(lambda: remove_member(self.account_id, pk, by=by, now=now))
        return Response(status=HTTPStatus.NO_CONTENT)


class Invitations(AccountListView[Invitation]):
    """The invitations that can be accepted."""

    needs = {"GET": Scope.READ, "POST": Scope.ADMIN}
    serializer_class = InvitationSerializer
    ordering = ("-invited_at", "-id")
    queryset = Invitation.objects.none()

    def get_queryset(self) -> QuerySet[Invitation]:
        """Return the invitations to the caller's account and to no other."""
        return open_invitations(self.account_id, now=datetime.now(UTC))

    @extend_schema(
        operation_id="member_invitations",
        responses=InvitationSerializer(many=True),
        examples=[_INVITED],
    )
    def get(self, request: Request, *args: Any, **path: Any) -> Response:
        """Return the invitations, the newest first."""
        return super().get(request, *args, **path)

    @extend_schema(
        operation_id="member_invite",
        request=NewInvitationSerializer,
        responses={201: InvitationSerializer},
        examples=[
            OpenApiExample(
                "For billing",
                value={"email": "grace@example.com", "role": "billing"},
                request_only=True,
            ),
            _INVITED,
        ],
    )
    def post(self, request: Request) -> Response:
        """Ask an address by e-mail to become a member. Asking again replaces the invitation."""
        asked = NewInvitationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        said, now = asked.validated_data, datetime.now(UTC)
        invitation = _refused_in_words(
            lambda: invite(
                self.account_id,
                email=said["email"],
                role=Role(said["role"]),
                by=_actor(self.caller),
                now=now,
            )
        )
        return Response(InvitationSerializer(invitation).data, HTTPStatus.CREATED)


class InvitationDetail(AccountView):
    """One invitation. Another account's is not found."""

    needs = Scope.ADMIN

    @extend_schema(operation_id="member_invitation_withdraw", responses={204: None})
    def delete(self, request: Request, invitation: UUID) -> Response:
        """Let it be accepted no longer. Safe to repeat."""
        del request
        by, now = _actor(self.caller), datetime.now(UTC)
        _refused_in_words(lambda: withdraw_invitation(self.account_id, invitation, by=by, now=now))
        return Response(status=HTTPStatus.NO_CONTENT)


def _actor(caller: Caller) -> Actor:
    """Return who acts. A key gets here with the scope admin, which only owners give."""
    if caller.user is None:
        return Actor(Role.OWNER)
    return Actor(Role(caller.role), caller.user.pk)


def _member_of(view: AccountView, member_id: int) -> Membership:
    """Return a member of the caller's account. Raises NotFound."""
    member = members_of(view.account_id).filter(pk=member_id).first()
    if member is None:
        raise NotFound
    return member


def _refused_in_words(do: Callable[[], Any]) -> Any:
    """Return what the service does. Raises NotFound, Problem or ValidationError."""
    try:
        return do()
    except (Membership.DoesNotExist, Invitation.DoesNotExist):
        raise NotFound from None
    except AccountClosingError as error:
        raise Problem(HTTPStatus.CONFLICT, "account_closed", str(error)) from None
    except LastOwnerError as refusal:
        raise Problem(HTTPStatus.CONFLICT, "last_owner", str(refusal)) from None
    except MemberRefusedError as refusal:
        field, _, says = str(refusal).partition(" ")
        if field == "email":
            raise field_problem(field, f"{says[0].upper()}{says[1:]}") from None
        raise conflict(str(refusal)) from None
