from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django.fixtures import Settings

from billing import services
from billing.models import OperatorKey, WebhookEndpoint
from billing.services.api_keys import KeyExpiredError
from metering.keys import authenticate_metering_key, issue_metering_key
from metering.models import MeteringKey
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
NOW = timezone.now()


def rotate(*arguments: str) -> str:
    out = StringIO()
    call_command("rotate_keys", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue().strip()


def state_of(name: str) -> tuple[int, str]:
    [one] = [one for one in json.loads(rotate("--json"))["secrets"] if one["name"] == name]
    return one["count"], one["state"]


def test_two_metering_keys_work_for_a_day_and_then_the_new_one() -> None:
    old = issue_metering_key(name="ci", host_name="h", scopes=["collect"], now=NOW)
    key = str(old.row.pk)
    assert "There would be another" in rotate("--metering-key", key, "--dry-run")
    assert MeteringKey.objects.count() == 1
    new = rotate("--metering-key", key)
    made = authenticate_metering_key(new, now=NOW)
    assert made
    assert (made.name, made.host, made.scopes) == ("ci", old.row.host, ["collect"])
    assert authenticate_metering_key(old.key, now=timezone.now() + 23 * DAY / 24)
    assert not authenticate_metering_key(old.key, now=timezone.now() + DAY)
    assert authenticate_metering_key(new, now=timezone.now() + 9 * DAY)
    with pytest.raises(CommandError, match="is no metering key that works on"):
        rotate("--metering-key", key)


def test_an_operators_key_is_rotated_at_once_or_with_an_overlap_and_can_be_revoked() -> None:
    first = services.issue_operator_key(name="cron", now=NOW).key
    second = rotate("--operator-key", "cron", "--overlap-hours", "2")
    later = timezone.now()
    for key, works in ((first, True), (second, True)):
        assert bool(services.authenticate_operator_key(key, now=later)) == works
    third = rotate("--operator-key", "cron", "--overlap-hours", "0")
    assert not services.authenticate_operator_key(second, now=timezone.now())
    assert services.authenticate_operator_key(first, now=timezone.now())
    # Both that still work go.
    services.revoke_operator_key("cron", now=timezone.now())
    for key in (first, second, third):
        assert not services.authenticate_operator_key(key, now=timezone.now())
    assert not OperatorKey.objects.filter(revoked_at__isnull=True).exists()


def test_a_customers_key_and_a_webhooks_secret_are_rotated() -> None:
    account = open_account()
    old = services.issue_api_key(account.pk, name="ci", now=NOW)
    new = rotate("--api-key", str(old.row.pk))
    for key in (old.key, new):
        assert services.authenticate_api_key(key, now=timezone.now())
    with pytest.raises(KeyExpiredError):
        services.authenticate_api_key(old.key, now=timezone.now() + DAY)
    assert state_of("API keys")[0] == 2
    with pytest.raises(CommandError, match="always overlap by 24 hours"):
        rotate("--webhook-endpoint", str(account.pk), "--overlap-hours", "1")


def test_it_tells_which_secret_key_webhooks_rest_on(settings: Settings) -> None:
    made = services.add_endpoint(
        open_account().pk, url="https://example.com/hook", event_types=[], now=NOW
    )
    name = "secrets of webhook endpoints"
    assert state_of(name) == (1, "1 of SECRET_KEY")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 9
    assert state_of(name) == (1, "1 of fallback 1")
    assert state_of("SECRET_KEY") == (2, "and 1 in SECRET_KEY_FALLBACKS")
    assert rotate("--webhook-endpoint", str(made.row.pk)).startswith("whsec_")
    assert state_of(name) == (1, "1 of SECRET_KEY")
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [], "a third one" * 9
    assert state_of(name) == (1, "1 lost: rotate each")
    assert WebhookEndpoint.objects.get() == made.row
