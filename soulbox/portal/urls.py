from __future__ import annotations

from django.urls import path

from soulbox.portal.views import overview, sign_in, sign_up

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
]
