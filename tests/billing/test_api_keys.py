from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from billing import services
from billing.models import ApiKey
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db


def test_a_key_authenticates_and_is_kept_only_as_its_hash() -> None:
    issued = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    assert issued.key.startswith("sbx_live_")
    assert services.authenticate_api_key(issued.key, now=NOON) == issued.row
    kept = ApiKey.objects.values().get()
    assert issued.key not in str(kept)
    assert issued.key.startswith(kept["prefix"])


def test_each_call_issues_another_key() -> None:
    account = open_account()
    keys = {services.issue_api_key(account.pk, name="ci", now=NOON).key for _ in range(3)}
    assert len(keys) == 3


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + "x", str.lower])
def test_a_key_that_is_not_exactly_it_is_unknown(change: Callable[[str], str]) -> None:
    issued = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    assert services.authenticate_api_key(change(issued.key), now=NOON) is None


def test_a_revoked_key_is_refused_and_revoking_again_changes_nothing() -> None:
    issued = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    services.revoke_api_key(issued.row.pk, now=NOON)
    services.revoke_api_key(issued.row.pk, now=NOON + timedelta(days=1))
    assert services.authenticate_api_key(issued.key, now=NOON) is None
    assert ApiKey.objects.get().revoked_at == NOON


def test_use_is_noted_once_a_minute() -> None:
    issued = services.issue_api_key(open_account().pk, name="ci", now=NOON)
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (61, 60)):
        services.authenticate_api_key(issued.key, now=NOON + timedelta(seconds=seconds))
        assert ApiKey.objects.get().last_used_at == NOON + timedelta(seconds=noted)
