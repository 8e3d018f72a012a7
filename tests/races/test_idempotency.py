"""A program that sends the same call ten times at the same moment, as one that lost an answer."""

from __future__ import annotations

import json
from collections import Counter
from multiprocessing import get_context

import pytest
from pytest_django.fixtures import Settings

from billing.api import idempotency
from billing.models import Budget, WebhookEndpoint
from tests.api.calling import Api
from tests.billing.usage import open_account
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

fork = get_context("fork")


def warm_api() -> Api:
    """Return a caller, once all that a call needs is loaded: workers are copies of this process."""
    api = Api.by_key(open_account().pk)
    assert api.get("budgets").status_code == 200
    return api


def post_at_once(*names: str) -> list[tuple[int, str]]:
    """Send a budget of each name with the same key at once; return status, and id or code."""
    api = warm_api()
    answers = fork.SimpleQueue()

    def post(number: int) -> None:
        body = {"name": names[number], "amount": "5.00", "thresholds": [50]}
        answer = api.post("budgets", body, **{"Idempotency-Key": "one"})
        said = answer.json()
        answers.put(json.dumps((answer.status_code, str(said.get("id") or said["code"]))))

    assert run_at_once(post, workers=len(names)) == [0] * len(names)
    return [tuple(json.loads(answers.get())) for _ in names]


def test_ten_equal_calls_at_once_are_done_once_and_answered_the_same() -> None:
    answers = post_at_once(*["Sandboxes"] * WORKERS)
    budget = Budget.objects.get()
    assert answers == [(201, str(budget.pk))] * WORKERS


def test_of_two_calls_with_one_key_at_once_one_is_done_and_the_other_refused() -> None:
    done, refused = sorted(post_at_once("Sandboxes", "Others"))
    assert done == (201, str(Budget.objects.get().pk))
    assert refused == (422, "idempotency_key_reused")


def test_without_a_record_each_call_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "begin_call", lambda *_, **__: None)
    answers = post_at_once(*(f"Sandboxes {number}" for number in range(WORKERS)))
    assert [status for status, _ in answers] == [201] * WORKERS
    assert Budget.objects.count() == WORKERS


def test_of_equal_calls_under_a_claim_one_is_done_and_the_others_wait_or_get_its_answer(
    settings: Settings,
) -> None:
    settings.WEBHOOKS_ALLOW_PRIVATE = True
    api = warm_api()
    answers = fork.SimpleQueue()

    def post(_number: int) -> None:
        body = {"url": "http://127.0.0.1:9000/hook"}
        answer = api.post("webhook-endpoints", body, **{"Idempotency-Key": "one"})
        answers.put((answer.status_code, answer.json().get("code", "")))

    assert run_at_once(post) == [0] * WORKERS
    said = Counter(answers.get() for _ in range(WORKERS))
    assert WebhookEndpoint.objects.count() == 1
    assert said[201, ""] >= 1
    assert said.keys() <= {(201, ""), (409, "idempotency_in_progress")}
