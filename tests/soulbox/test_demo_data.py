from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth import authenticate
from pytest_django.fixtures import Settings

from billing.models import ApiKey, Membership, Subscription
from billing.services import authenticate_api_key, revoke_api_key
from soulbox.demo_data import ACCOUNT_ID, FILE_NAME, seed

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(settings: Settings, tmp_path: Path) -> Path:
    settings.HOME = tmp_path
    return tmp_path


def test_the_logins_work() -> None:
    logins = seed(NOW)
    admin = authenticate(username=logins.admin, password=logins.admin_password)
    owner = authenticate(username=logins.owner, password=logins.owner_password)
    assert admin is not None
    assert admin.is_superuser
    assert owner is not None
    assert not owner.is_staff
    assert Membership.objects.get(user=owner).role == Membership.Role.OWNER
    key = authenticate_api_key(logins.api_key, now=NOW)
    assert key is not None
    assert key.account_id == ACCOUNT_ID


def test_each_role_has_a_login_in_its_group() -> None:
    logins = seed(NOW)
    assert set(logins.staff) == {"finance", "finance-manager", "support", "operator"}
    for name, password in logins.staff.items():
        user = authenticate(username=name, password=password)
        assert user is not None
        assert user.is_staff
        assert not user.is_superuser
        assert [group.name.replace(" ", "-") for group in user.groups.all()] == [name]


def test_logins_kept_by_a_version_without_roles_are_added_to(home: Path) -> None:
    first = seed(NOW)
    kept = json.loads((home / FILE_NAME).read_text())
    del kept["staff"]
    (home / FILE_NAME).write_text(json.dumps(kept))
    second = seed(NOW)
    assert second.admin_password == first.admin_password
    assert authenticate(username="support", password=second.staff["support"]) is not None


def test_a_second_time_gives_the_same_logins_and_makes_nothing() -> None:
    first = seed(NOW)
    assert seed(NOW + timedelta(days=1)) == first
    assert ApiKey.objects.count() == 1
    assert Subscription.objects.count() == 1
    assert Membership.objects.count() == 1


def test_the_kept_logins_are_for_their_owner_alone(home: Path) -> None:
    seed(NOW)
    assert stat.S_IMODE((home / FILE_NAME).stat().st_mode) == 0o600


def test_logins_that_were_lost_are_made_again(home: Path) -> None:
    first = seed(NOW)
    (home / FILE_NAME).unlink()
    second = seed(NOW)
    assert second.admin_password != first.admin_password
    assert authenticate(username=second.admin, password=second.admin_password) is not None


def test_a_key_that_was_revoked_is_replaced(home: Path) -> None:
    first = seed(NOW)
    key = authenticate_api_key(first.api_key, now=NOW)
    assert key is not None
    revoke_api_key(key.pk, now=NOW)
    second = seed(NOW)
    assert second.api_key != first.api_key
    assert json.loads((home / FILE_NAME).read_text())["api_key"] == second.api_key
