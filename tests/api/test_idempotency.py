from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.urls import URLResolver, get_resolver

from billing.api.views import AccountView
from billing.models import ApiKey, IdempotentCall
from billing.services.idempotency import (
    CLAIMED,
    KEPT,
    Answer,
    InProgressError,
    KeyReusedError,
    begin_call,
    drop_call,
    forget_old_calls,
    keep_answer,
)
from tests.api.calling import Api
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

ONE, OTHER = "a" * 64, "b" * 64


def test_a_call_that_was_answered_is_answered_the_same() -> None:
    account = open_account()
    assert begin_call(account.pk, "k", ONE, now=NOON) is None
    keep_answer(account.pk, "k", Answer(201, {"id": 1}))
    again = begin_call(account.pk, "k", ONE, now=NOON + timedelta(hours=23))
    assert again == Answer(201, {"id": 1})


def test_a_key_is_of_one_call_of_one_account() -> None:
    account, other = open_account("Ada"), open_account("Eve")
    begin_call(account.pk, "k", ONE, now=NOON)
    with pytest.raises(KeyReusedError):
        begin_call(account.pk, "k", OTHER, now=NOON)
    assert begin_call(other.pk, "k", OTHER, now=NOON) is None


def test_a_call_at_work_is_waited_for_until_its_worker_is_given_up() -> None:
    account = open_account()
    begin_call(account.pk, "k", ONE, now=NOON)
    with pytest.raises(InProgressError):
        begin_call(account.pk, "k", ONE, now=NOON + CLAIMED / 2)
    assert begin_call(account.pk, "k", ONE, now=NOON + CLAIMED) is None


def test_a_refused_call_may_be_mended_and_sent_again() -> None:
    account = open_account()
    begin_call(account.pk, "k", ONE, now=NOON)
    drop_call(account.pk, "k")
    assert begin_call(account.pk, "k", OTHER, now=NOON) is None


def test_a_day_later_the_key_is_as_new_and_swept() -> None:
    account = open_account()
    begin_call(account.pk, "k", ONE, now=NOON)
    keep_answer(account.pk, "k", Answer(200, None))
    assert begin_call(account.pk, "k", OTHER, now=NOON + KEPT) is None
    begin_call(account.pk, "l", ONE, now=NOON)
    assert not forget_old_calls(NOON + KEPT)
    assert IdempotentCall.objects.get().key == "k"


def posts() -> Iterator[tuple[str, type[AccountView]]]:
    def below(resolver: URLResolver, path: str) -> Iterator[tuple[str, Any]]:
        for pattern in resolver.url_patterns:
            here = path + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from below(pattern, here)
            else:
                yield here, getattr(pattern.callback, "cls", None)

    for path, view in below(get_resolver(), ""):
        if isinstance(view, type) and issubclass(view, AccountView) and hasattr(view, "post"):
            yield path, view


def test_every_post_of_an_account_takes_a_key() -> None:
    found = list(posts())
    assert len(found) >= 2
    for path, view in found:
        assert hasattr(view.post, "__wrapped__"), path  # type: ignore[attr-defined]  # it has one


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    api = Api.by_key(open_account().pk)
    answer = api.post("payment-methods", {}, **{"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")


@pytest.mark.django_db(transaction=True)
def test_of_two_calls_at_once_one_is_done_and_both_are_answered() -> None:
    account = open_account()
    together = Barrier(2)

    def call(name: str) -> Answer | None:
        try:
            together.wait()
            with transaction.atomic():
                known = begin_call(account.pk, "k", ONE, now=datetime.now(UTC))
                if known is None:
                    _effect(account.pk, name)
                    keep_answer(account.pk, "k", Answer(201, {"by": name}))
                return known
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(call, ["first", "second"]))
    (done,) = ApiKey.objects.filter(account=account)
    assert min(answers, key=str) == Answer(201, {"by": done.name})
    assert answers.count(None) == 1


def _effect(account_id: UUID, name: str) -> None:
    ApiKey.objects.create(account_id=account_id, name=name, key_hash=name, created_at=NOON)
