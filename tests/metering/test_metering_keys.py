from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from metering.keys import (
    IssuedMeteringKey,
    KeyRefusedError,
    authenticate_metering_key,
    issue_metering_key,
    revoke_metering_key,
)
from metering.models import Host, MeteringKey, StreamCursor
from metering.services import register_account, register_host
from tests.metering.runtime import NOON

pytestmark = pytest.mark.django_db

PAGE = "/admin/metering/meteringkey/"


def issue(**changes: object) -> IssuedMeteringKey:
    said = {"name": "cluster", "host_name": "cluster-1", "scopes": ["samples"], "now": NOON}
    return issue_metering_key(**(said | changes))  # type: ignore[arg-type]


def an_account() -> UUID:
    account_id = uuid4()
    register_account(account_id=account_id, time_zone="UTC", registered_at=NOON)
    return account_id


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client


def test_a_key_authenticates_and_is_kept_only_as_its_hash() -> None:
    issued = issue()
    assert issued.key.startswith("sbx_meter_")
    assert authenticate_metering_key(issued.key, now=NOON) == issued.row
    kept = MeteringKey.objects.values().get()
    assert issued.key not in str(kept)
    assert issued.key.startswith(kept["prefix"])


def test_a_host_is_made_for_the_first_key_and_taken_for_the_next() -> None:
    keys = {issue().key, issue(account_id=an_account()).key}
    assert len(keys) == 2
    host = Host.objects.get()
    assert (host.name, host.endpoint, host.source) == ("cluster-1", "api:", "api")
    assert StreamCursor.objects.filter(host=host).count() == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"host_name": ""}, "host"),
        ({"host_name": "x" * 65}, "host"),
        ({"host_name": "a\x00"}, "host"),
        ({"host_name": "docker"}, "host"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["samples", "money"]}, "scopes"),
        ({"account_id": uuid4()}, "account"),
    ],
)
def test_what_is_refused_is_named(changes: dict[str, object], field: str) -> None:
    register_host(host_id=uuid4(), name="docker", endpoint="unix:///docker.sock", now=NOON)
    with pytest.raises(KeyRefusedError, match=f"^{field}: ") as refused:
        issue(**changes)
    assert refused.value.field == field
    assert Host.objects.get().name == "docker"


def test_a_key_that_only_collects_may_be_of_a_host_that_is_read() -> None:
    register_host(host_id=uuid4(), name="docker", endpoint="unix:///docker.sock", now=NOON)
    assert issue(host_name="docker", scopes=["collect"]).row.host.name == "docker"


@pytest.mark.parametrize("scopes", [[], ["money"], ["samples", "money"]])
def test_the_table_keeps_no_key_without_scopes_that_exist(scopes: list[str]) -> None:
    row = issue().row
    with (
        pytest.raises(IntegrityError, match="metering_key_has_scopes_that_exist"),
        transaction.atomic(),
    ):
        MeteringKey.objects.filter(pk=row.pk).update(scopes=scopes)


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + "x", str.lower])
def test_a_key_that_is_not_exactly_it_is_unknown(change: Callable[[str], str]) -> None:
    assert authenticate_metering_key(change(issue().key), now=NOON) is None


def test_a_revoked_key_is_refused_and_revoking_again_changes_nothing() -> None:
    issued = issue()
    revoke_metering_key(issued.row.pk, now=NOON)
    revoke_metering_key(issued.row.pk, now=NOON + timedelta(days=1))
    assert authenticate_metering_key(issued.key, now=NOON) is None
    assert MeteringKey.objects.get().revoked_at == NOON


def test_use_is_noted_once_a_minute() -> None:
    issued = issue()
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (61, 60)):
        authenticate_metering_key(issued.key, now=NOON + timedelta(seconds=seconds))
        assert MeteringKey.objects.get().last_used_at == NOON + timedelta(seconds=noted)


def test_the_command_prints_the_key_once_and_nothing_else_on_stdout() -> None:
    output, account_id = StringIO(), an_account()
    call_command(
        "issue_metering_key",
        "cluster",
        *("--host", "cluster-1", "--account", str(account_id)),
        *("--scope", "samples", "--scope", "collect"),
        stdout=output,
        stderr=StringIO(),
    )
    row = authenticate_metering_key(output.getvalue().strip(), now=NOON)
    assert row is not None
    assert (row.name, row.host.name, row.account_id) == ("cluster", "cluster-1", account_id)
    assert row.scopes == ["collect", "samples"]


def test_the_command_issues_a_key_that_sends_unless_told_otherwise() -> None:
    call_command("issue_metering_key", "a", "--host", "b", stdout=StringIO(), stderr=StringIO())
    assert MeteringKey.objects.get().scopes == ["samples"]


def test_the_command_names_what_it_refuses() -> None:
    with pytest.raises(CommandError, match=r"^account: "):
        call_command("issue_metering_key", "a", "--host", "b", "--account", str(uuid4()))


def test_staff_issue_a_key_and_see_it_this_once(staff: Client) -> None:
    account_id = an_account()
    assert staff.get(f"{PAGE}add/").status_code == 200
    said = {
        "name": "cluster",
        "host_name": "cluster-1",
        "account": str(account_id),
        "scopes": ["samples", "collect"],
    }
    answer = staff.post(f"{PAGE}add/", said)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    page = answer.content.decode()
    key = page.split("<code>")[1].split("</code>")[0]
    row = authenticate_metering_key(key, now=NOON)
    assert row is not None
    assert (row.account_id, row.scopes) == (account_id, ["collect", "samples"])
    for later in (PAGE, f"{PAGE}?q=cluster", f"{PAGE}{row.pk}/change/", f"{PAGE}{row.pk}/history/"):
        shown = staff.get(later)
        assert shown.status_code == 200
        assert key not in shown.content.decode()
        assert row.key_hash not in shown.content.decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host_name": "docker"}, "bill twice"),
        ({"scopes": []}, "required"),
        ({"name": ""}, "required"),
        ({"account": str(uuid4())}, "valid choice"),
    ],
)
def test_staff_are_told_what_is_refused(
    staff: Client, change: dict[str, object], message: str
) -> None:
    register_host(host_id=uuid4(), name="docker", endpoint="unix:///docker.sock", now=NOON)
    said: dict[str, object] = {"name": "a", "host_name": "b", "account": "", "scopes": ["samples"]}
    answer = staff.post(f"{PAGE}add/", said | change)
    assert message in answer.content.decode()
    assert not MeteringKey.objects.exists()


def test_staff_revoke_a_key_and_nobody_changes_or_deletes_one(staff: Client) -> None:
    issued = issue()
    act = {"action": "revoke", "_selected_action": [str(issued.row.pk)]}
    assert staff.post(PAGE, act, follow=True).status_code == 200
    assert authenticate_metering_key(issued.key, now=timezone.now()) is None
    assert staff.post(f"{PAGE}{issued.row.pk}/change/", {"name": "x"}).status_code == 403
    assert staff.post(f"{PAGE}{issued.row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_who_may_only_look_neither_issues_nor_revokes() -> None:
    issued = issue()
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    act = {"action": "revoke", "_selected_action": [str(issued.row.pk)]}
    client.post(PAGE, act, follow=True)
    assert client.get(f"{PAGE}add/").status_code == 403
    assert authenticate_metering_key(issued.key, now=NOON) is not None
