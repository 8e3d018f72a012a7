from __future__ import annotations

from django.urls import path

from soulbox.portal.views import (
    account_switch,
    credit,
    invitation,
    invoices,
    members,
    methods,
    overview,
    plan,
    sign_in,
    sign_up,
)

app_name = "portal"
urlpatterns = [
    path("", overview.Overview.as_view(), name="overview"),
    path("sign-in", sign_in.SignIn.as_view(), name="sign-in"),
    path("sign-out", sign_in.SignOut.as_view(), name="sign-out"),
    path("password", sign_in.ForgottenPassword.as_view(), name="password-forgotten"),
    path("password/mailed", sign_in.PasswordMailed.as_view(), name="password-mailed"),
    path("password/changed", sign_in.PasswordChanged.as_view(), name="password-changed"),
    path("password/<uidb64>/<token>", sign_in.NewPassword.as_view(), name="password-new"),
    path("sign-up", sign_up.SignUp.as_view(), name="sign-up"),
    path("sign-up/mailed", sign_up.SignUpMailed.as_view(), name="sign-up-mailed"),
    path("sign-up/<token>", sign_up.SignUpConfirmed.as_view(), name="sign-up-confirmed"),
    path("invitations/<token>", invitation.AcceptInvitation.as_view(), name="invitation"),
    path("account-switch", account_switch.SwitchAccount.as_view(), name="account-switch"),
    path("invoices", invoices.Invoices.as_view(), name="invoices"),
    path("invoices/<int:pk>", invoices.InvoicePage.as_view(), name="invoice"),
    path("invoices/<int:pk>/<kind>", invoices.InvoiceDownload.as_view(), name="invoice-download"),
    path(
        "credit-notes/<int:pk>/<kind>",
        invoices.CreditNoteDownload.as_view(),
        name="credit-note-download",
    ),
    path("credits", credit.Credits.as_view(), name="credits"),
    path("credits/buy", credit.BuyCredit.as_view(), name="credit-buy"),
    path("credits/automatic", credit.BuyCreditByItself.as_view(), name="credit-automatic"),
    path("plan", plan.PlanPage.as_view(), name="plan"),
    path("plan/preview", plan.PlanPreview.as_view(), name="plan-preview"),
    path("plan/change", plan.PlanChange.as_view(), name="plan-change"),
    path("plan/cancel", plan.PlanCancel.as_view(), name="plan-cancel"),
    path("plan/resume", plan.PlanResume.as_view(), name="plan-resume"),
    path("payment-methods", methods.Methods.as_view(), name="payment-methods"),
    path("payment-methods/add", methods.MethodAdd.as_view(), name="payment-method-add"),
    path(
        "payment-methods/<int:pk>/default",
        methods.MethodDefault.as_view(),
        name="payment-method-default",
    ),
    path(
        "payment-methods/<int:pk>/remove",
        methods.MethodRemove.as_view(),
        name="payment-method-remove",
    ),
    path("members", members.Members.as_view(), name="members"),
    path("members/invite", members.MemberInvite.as_view(), name="member-invite"),
    path("members/leave", members.MemberLeave.as_view(), name="member-leave"),
    path("members/<int:pk>/role", members.MemberRole.as_view(), name="member-role"),
    path("members/<int:pk>/remove", members.MemberRemove.as_view(), name="member-remove"),
    path(
        "members/invitations/<uuid:pk>/withdraw",
        members.InvitationWithdraw.as_view(),
        name="invitation-withdraw",
    ),
]
