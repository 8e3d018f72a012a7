"""Django's users and groups, in the look of the rest."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import (
    AdminPasswordChangeForm,
    UserChangeForm,
    UserCreationForm,
)

from billing.admin.asking import AsksWhy
from metering.pages import ModelAdmin

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(AsksWhy, DjangoUserAdmin, ModelAdmin[User]):  # type: ignore[type-arg]
    """People who log in here, and members of accounts."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(AsksWhy, DjangoGroupAdmin, ModelAdmin[Group]):
    """Sets of rights."""
