from __future__ import annotations

from django.contrib import admin
from django.urls import path

from soulbox.staff import views

# For who is staff, by the password at least; never cached, and with CSRF's token.
urlpatterns = [
    path("", admin.site.admin_view(views.ask_code), name="second-factor"),
    path("set-up/", admin.site.admin_view(views.set_up), name="second-factor-set-up"),
    path("recovery-codes/", admin.site.admin_view(views.new_codes), name="second-factor-codes"),
]
