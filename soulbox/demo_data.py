"""The account, users and key that `make run` gives a newcomer."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from billing.models import Membership
from billing.services import authenticate_api_key, issue_api_key, open_account, subscribe
from soulbox.staff.roles import Role

# Fixed, so that the `docker run` line of the README works on every machine.
ACCOUNT_ID = UUID("00000000-0000-4000-8000-0000000000d0")
PLAN_CODE = "professional"
FILE_NAME = "demo-logins.json"
PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True)
class DemoLogins:
    """What a newcomer logs in with. Kept in SOULBOX_HOME, readable by its owner alone."""

    account_id: str
    admin: str
    admin_password: str
    owner: str
    owner_password: str
    api_key: str
    # Names and passwords of the log-ins of each role.
    staff: dict[str, str] = field(default_factory=dict)


def seed(now: datetime) -> DemoLogins:
    """Make the demo account, its users and its key, and return how to log in.

    Safe to repeat: passwords and key are made once and stay, unless the database lost them.
    """
    kept = settings.HOME / FILE_NAME
    logins = _read(kept) or _new_logins()
    open_account(account_id=ACCOUNT_ID, name="Demo", now=now)
    subscribe(ACCOUNT_ID, plan_code=PLAN_CODE, now=now)
    _have_user(logins.admin, logins.admin_password, is_admin=True)
    _have_user(logins.owner, logins.owner_password, is_admin=False)
    for role in Role:
        name = role.replace(" ", "-")
        logins.staff.setdefault(name, secrets.token_urlsafe(PASSWORD_BYTES))
        _have_user(name, logins.staff[name], is_admin=False, role=role)
    owner = get_user_model().objects.get(username=logins.owner)
    Membership.objects.get_or_create(
        user=owner, account_id=ACCOUNT_ID, defaults={"role": Membership.Role.OWNER}
    )
    if authenticate_api_key(logins.api_key, now=now) is None:
        issued = issue_api_key(ACCOUNT_ID, name="Demo", now=now)
        logins = replace(logins, api_key=issued.key)
    _write(kept, logins)
    return logins


def _new_logins() -> DemoLogins:
    return DemoLogins(
        account_id=str(ACCOUNT_ID),
        admin="admin",
        admin_password=secrets.token_urlsafe(PASSWORD_BYTES),
        owner="demo",
        owner_password=secrets.token_urlsafe(PASSWORD_BYTES),
        api_key="",
    )


def _have_user(name: str, password: str, *, is_admin: bool, role: Role | None = None) -> None:
    is_staff = is_admin or role is not None
    user, is_new = get_user_model().objects.get_or_create(
        username=name, defaults={"is_staff": is_staff, "is_superuser": is_admin}
    )
    if role and is_new:
        user.groups.add(Group.objects.get(name=role.value))
    if not user.check_password(password):
        user.set_password(password)
        user.save(update_fields=["password"])


def _read(file: Path) -> DemoLogins | None:
    return DemoLogins(**json.loads(file.read_text())) if file.exists() else None


def _write(file: Path, logins: DemoLogins) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = file.with_suffix(".unfinished")
    # Private from its first byte; renamed, so that a crash leaves the old file or the new one.
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as text:
        json.dump(asdict(logins), text, indent=2)
    unfinished.replace(file)
