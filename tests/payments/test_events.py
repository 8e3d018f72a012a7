from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pytest_django.fixtures import Settings

from payments import tasks
from payments.models import WebhookEvent
from payments.provider import BusyError, NoAnswerError, NotFoundError, NotSetUpError
from payments.services import applying
from payments.services.applying import Outcome
from payments.services.events import (
    EVENTS_A_SWEEP,
    LEASE,
    MOST_TRIES,
    WAITS,
    apply_event,
    claim_event,
    due_events,
    give_up_events,
    next_due_event,
    replay_event,
)
from payments.stripe.client import API_VERSION
from tests.payments.signed_events import HAPPENED_AT as NOW
from tests.payments.signed_events import store

pytestmark = pytest.mark.django_db
Status = WebhookEvent.Status


class Steps:
    """What is done about `invoice.paid`: it notes for which events, and answers as it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.answers: dict[str, Outcome | BaseException | Callable[[], Outcome]] = {}

    def __call__(self, event: WebhookEvent, now: datetime) -> Outcome:
        del now
        self.done.append(event.event_id)
        answer = self.answers.get(event.event_id, Outcome(is_applied=True, result="Taken over."))
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Outcome) else answer()


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(applying, "_STEPS", {"invoice.paid": made})
    return made


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_an_event_is_applied_once(steps: Steps) -> None:
    row = store()
    assert due_events(NOW) == ["evt_1"]
    for second in range(3):
        assert apply_event("evt_1", now=at(second))
    row.refresh_from_db()
    assert (row.status, row.applied_at, row.result) == (Status.APPLIED, NOW, "Taken over.")
    assert (row.claimed_until, row.tries) == (None, 1)
    assert steps.done == ["evt_1"]
    assert due_events(at(999)) == []


def test_an_event_about_nothing_of_ours_is_ignored(steps: Steps) -> None:
    steps.answers["evt_1"] = Outcome(is_applied=False, result="It is not ours.")
    row = store()
    apply_event("evt_1", now=NOW)
    row.refresh_from_db()
    assert (row.status, row.applied_at, row.result) == (Status.IGNORED, None, "It is not ours.")


def test_an_event_that_is_not_there_is_no_error() -> None:
    assert apply_event("evt_none", now=NOW)


def test_another_version_is_applied_and_noted() -> None:
    row = store(api_version="2020-08-27")
    apply_event("evt_1", now=NOW)
    row.refresh_from_db()
    assert row.status == Status.APPLIED
    assert row.result == f"Taken over. It came in version 2020-08-27, ours is {API_VERSION}."


def test_the_mode_is_looked_at_when_an_event_is_applied(settings: Settings, steps: Steps) -> None:
    settings.STRIPE_API_KEY = "sk_live_1"
    row = store()
    apply_event("evt_1", now=NOW)
    row.refresh_from_db()
    assert row.status == Status.IGNORED
    assert row.result.startswith("It is of test mode")
    assert steps.done == []


def test_a_claim_keeps_others_away_until_the_lease_is_over() -> None:
    store()
    claimed = claim_event("evt_1", now=NOW)
    assert claimed is not None
    assert claimed.claimed_until == NOW + LEASE
    assert claim_event("evt_1", now=NOW + LEASE - timedelta(microseconds=1)) is None
    assert due_events(NOW + timedelta(seconds=44)) == []
    # Whoever had it died; the next sweep is 15 s away at most.
    assert LEASE + timedelta(seconds=15) <= timedelta(minutes=1)
    assert due_events(NOW + LEASE) == ["evt_1"]
    again = claim_event("evt_1", now=NOW + LEASE)
    assert again is not None
    assert again.tries == 2


def test_one_event_about_an_object_is_applied_at_a_time() -> None:
    store("evt_1")
    store("evt_2")
    store("evt_3", object_id="in_2")
    assert claim_event("evt_1", now=NOW)
    assert claim_event("evt_2", now=NOW) is None
    assert claim_event("evt_3", now=NOW)
    assert claim_event("evt_2", now=NOW + LEASE)


def test_whoever_is_hinted_at_an_event_goes_on_with_what_else_is_due(steps: Steps) -> None:
    store("evt_1")

    def came_beside() -> Outcome:
        # Its own worker finds the object taken, and leaves it.
        store("evt_2")
        tasks.apply_event("evt_2")
        return Outcome(is_applied=True, result="Taken over.")

    steps.answers["evt_1"] = came_beside
    tasks.apply_event("evt_1")
    assert steps.done == ["evt_1", "evt_2"]


def test_a_hint_is_good_for_a_bounded_number_of_events(steps: Steps) -> None:
    for number in range(tasks.EVENTS_A_HINT + 5):
        store(f"evt_{number}", object_id=f"in_{number}")
    tasks.apply_event("evt_0")
    assert len(steps.done) == tasks.EVENTS_A_HINT


def test_the_next_event_is_one_that_nobody_is_in_the_way_of() -> None:
    assert next_due_event(NOW) is None
    store("evt_1")
    store("evt_2")
    claim_event("evt_1", now=NOW)
    assert next_due_event(NOW) is None
    store("evt_3", object_id="in_3", try_at=at(60))
    store("evt_4", object_id="in_4", try_at=at(30))
    assert next_due_event(at(29)) is None
    assert next_due_event(at(30)) == "evt_4"
    assert next_due_event(NOW + LEASE) == "evt_1"


def test_an_event_that_fails_is_tried_later_and_later_and_then_left_to_a_person(
    steps: Steps,
) -> None:
    steps.answers["evt_1"] = NotFoundError("No such invoice: 'in_1'")
    row, now = store(), NOW
    for wait in WAITS:
        assert apply_event("evt_1", now=now)
        row.refresh_from_db()
        assert (row.status, row.claimed_until) == (Status.RECEIVED, None)
        assert row.result == "NotFoundError: No such invoice: 'in_1'"
        assert row.try_at == now + wait
        apply_event("evt_1", now=row.try_at - timedelta(seconds=1))
        now = row.try_at
    apply_event("evt_1", now=now)
    row.refresh_from_db()
    assert (row.status, row.tries) == (Status.FAILED, MOST_TRIES)
    assert len(steps.done) == MOST_TRIES
    assert now - NOW > timedelta(days=1)
    assert due_events(now + timedelta(days=30)) == []


@pytest.mark.parametrize("error", [NoAnswerError("lost"), BusyError("429"), NotSetUpError("no")])
def test_where_the_provider_is_out_of_reach_a_sweep_stops(steps: Steps, error: Exception) -> None:
    for number in range(3):
        store(f"evt_{number}", object_id=f"in_{number}")
        steps.answers[f"evt_{number}"] = error
    tasks.sweep_events()
    assert steps.done == ["evt_0"]
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {Status.RECEIVED}


def test_an_event_that_breaks_stops_only_itself(steps: Steps) -> None:
    for number in range(3):
        store(f"evt_{number}", object_id=f"in_{number}")
    steps.answers["evt_1"] = KeyError("data\x00")
    tasks.sweep_events()
    assert steps.done == ["evt_0", "evt_1", "evt_2"]
    broken = WebhookEvent.objects.get(event_id="evt_1")
    assert (broken.status, broken.result) == (Status.RECEIVED, "KeyError: 'data\\x00'")
    assert WebhookEvent.objects.filter(status=Status.APPLIED).count() == 2


def test_a_sweep_is_bounded(steps: Steps) -> None:
    for number in range(EVENTS_A_SWEEP + 1):
        store(f"evt_{number}", object_id=f"in_{number}")
    assert len(due_events(NOW)) == EVENTS_A_SWEEP
    tasks.sweep_events()
    assert len(steps.done) == EVENTS_A_SWEEP


def test_a_task_that_runs_out_of_time_leaves_its_event_to_another(steps: Steps) -> None:
    steps.answers["evt_1"] = SoftTimeLimitExceeded()
    row = store()
    with pytest.raises(SoftTimeLimitExceeded):
        apply_event("evt_1", now=NOW)
    row.refresh_from_db()
    assert (row.status, row.claimed_until) == (Status.RECEIVED, NOW + LEASE)
    steps.answers.clear()
    apply_event("evt_1", now=NOW + LEASE)
    row.refresh_from_db()
    assert row.status == Status.APPLIED


def test_whose_lease_ran_out_writes_nothing(steps: Steps) -> None:
    row = store()

    def slow() -> Outcome:
        assert claim_event("evt_1", now=NOW + LEASE)
        return Outcome(is_applied=True, result="Too late.")

    steps.answers["evt_1"] = slow
    apply_event("evt_1", now=NOW)
    row.refresh_from_db()
    assert (row.status, row.result) == (Status.RECEIVED, "")
    assert row.claimed_until == NOW + 2 * LEASE


def test_an_event_whose_workers_die_each_time_is_given_up() -> None:
    row, now = store(), NOW
    for _ in range(MOST_TRIES):
        assert give_up_events(now) == 0
        assert claim_event("evt_1", now=now)
        now += LEASE
    assert claim_event("evt_1", now=now) is None
    assert give_up_events(now - timedelta(seconds=1)) == 0
    assert give_up_events(now) == 1
    row.refresh_from_db()
    assert row.status == Status.FAILED
    assert row.result == "Whatever applied it ended before it was done, each time."


@pytest.mark.parametrize("status", Status)
def test_an_event_is_applied_again_whatever_became_of_it(steps: Steps, status: Status) -> None:
    applied_at = NOW if status == Status.APPLIED else None
    row = store(status=status, applied_at=applied_at, result="Was so.", tries=MOST_TRIES)
    later = at(3600)
    assert replay_event("evt_1", now=later)
    row.refresh_from_db()
    assert (row.status, row.result, row.applied_at, row.tries) == (Status.RECEIVED, "", None, 0)
    apply_event("evt_1", now=later)
    row.refresh_from_db()
    assert (row.status, row.applied_at) == (Status.APPLIED, later)
    assert steps.done == ["evt_1"]


def test_an_event_that_is_being_applied_is_left_alone() -> None:
    store()
    claim_event("evt_1", now=NOW)
    assert not replay_event("evt_1", now=at(1))
    assert WebhookEvent.objects.get().claimed_until == NOW + LEASE
    assert replay_event("evt_1", now=NOW + LEASE)


def test_an_event_that_is_not_there_is_not_applied_again() -> None:
    with pytest.raises(WebhookEvent.DoesNotExist):
        replay_event("evt_none", now=NOW)
