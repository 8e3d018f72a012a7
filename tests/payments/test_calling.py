from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.models import Account
from billing.money import Money
from payments.models import ProviderCall
from payments.provider import (
    BrokenError,
    BusyError,
    NoAnswerError,
    ProviderError,
    RefusedError,
    SetupIntent,
)
from payments.services.calling import KEY_LIFE, Call, is_repeatable, make_call
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def account() -> Account:
    return open_account()


class Asking:
    """What a provider is asked under, and what it answers in turn."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.keys: list[str] = []

    def __call__(self, key: str) -> object:
        self.keys.append(key)
        # The row is there before the provider hears of it.
        assert ProviderCall.objects.filter(key=key, times__gte=1).exists()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def call(account: Account) -> Call:
    asked = {"amount": Money(Decimal("1.50"), "USD"), "client_secret": "seti_secret"}
    return Call("inv-1-pay", "invoices.pay", account.pk, asked)


@pytest.mark.parametrize("secret", ["sk_live_51Ab", "rk_test_51Ab", "whsec_a1", "pi_3_secret_b2"])
def test_a_secret_that_the_provider_names_is_not_kept(account: Account, secret: str) -> None:
    with pytest.raises(RefusedError):
        make_call(call(account), Asking(RefusedError(f"Invalid: {secret}.")), now=NOW)
    assert ProviderCall.objects.get().answered["message"] == "Invalid: (not kept)."


def test_a_call_is_written_down_with_its_answer_and_without_secrets(account: Account) -> None:
    make_call(call(account), Asking(SetupIntent("seti_1", "seti_1_secret_x")), now=NOW)
    row = ProviderCall.objects.get()
    assert row.outcome == ProviderCall.Outcome.DONE
    assert row.asked == {"amount": "1.50 USD", "client_secret": "(not kept)"}
    assert row.answered == {"id": "seti_1", "client_secret": "(not kept)"}


@pytest.mark.parametrize("error", [NoAnswerError("lost"), BusyError("429")])
def test_what_may_still_happen_is_asked_again_under_the_same_key(
    account: Account, error: ProviderError
) -> None:
    asking = Asking(error, "in_1")
    with pytest.raises(type(error)):
        make_call(call(account), asking, now=NOW)
    assert make_call(call(account), asking, now=NOW + timedelta(hours=1)) == "in_1"
    assert asking.keys == ["inv-1-pay", "inv-1-pay"]
    assert ProviderCall.objects.get().times == 2


@pytest.mark.parametrize("error", [BrokenError("500"), RefusedError("no")])
def test_what_the_provider_is_at_its_end_with_is_asked_anew(
    account: Account, error: ProviderError
) -> None:
    asking = Asking(error, error, "in_1")
    for _ in range(2):
        with pytest.raises(type(error)):
            make_call(call(account), asking, now=NOW)
        assert not is_repeatable("inv-1-pay", now=NOW)
    make_call(call(account), asking, now=NOW)
    assert asking.keys == ["inv-1-pay", "inv-1-pay.2", "inv-1-pay.3"]


def test_a_key_that_the_provider_may_have_forgotten_is_not_used_again(account: Account) -> None:
    asking = Asking(NoAnswerError("lost"), "in_1")
    with pytest.raises(NoAnswerError):
        make_call(call(account), asking, now=NOW)
    assert is_repeatable("inv-1-pay", now=NOW + KEY_LIFE - timedelta(seconds=1))
    assert not is_repeatable("inv-1-pay", now=NOW + KEY_LIFE)
    make_call(call(account), asking, now=NOW + KEY_LIFE)
    assert asking.keys == ["inv-1-pay", "inv-1-pay.2"]


def test_an_answered_call_made_again_has_the_same_key(account: Account) -> None:
    asking = Asking("in_1", "in_1")
    make_call(call(account), asking, now=NOW)
    make_call(call(account), asking, now=NOW)
    assert asking.keys == ["inv-1-pay"] * 2
    assert ProviderCall.objects.count() == 1
