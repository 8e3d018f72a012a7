"""Ten workers apply events about one object at once; ten web workers store the same event."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection

from payments.models import WebhookEvent
from payments.services import applying
from payments.services.applying import Outcome
from payments.services.events import LEASE, apply_event, receive_event
from payments.stripe.shapes import event_of
from tests.payments.signed_events import HAPPENED_AT as NOW
from tests.payments.signed_events import event, store
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)
STEP_S = 0.05


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says when each application began and ended, in order."""
    file = tmp_path / "journal"

    def step(row: WebhookEvent, now: object) -> Outcome:
        del now
        note(file, "begin")
        time.sleep(STEP_S)
        note(file, "end")
        return Outcome(is_applied=True, result=row.event_id)

    monkeypatch.setattr(applying, "_STEPS", {"invoice.paid": step})
    return file


def note(file: Path, word: str) -> None:
    # One write of few bytes to the end of a file is one piece.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


def overlaps(file: Path) -> bool:
    words = file.read_text().split()
    return any(word == after == "begin" for word, after in pairwise(words))


def apply_own(worker: int) -> None:
    while WebhookEvent.objects.filter(event_id=f"evt_{worker}", status="received").exists():
        apply_event(f"evt_{worker}", now=NOW)


def test_events_about_one_object_are_applied_one_after_the_other(journal: Path) -> None:
    for number in range(WORKERS):
        store(f"evt_{number}")
    assert run_at_once(apply_own) == [0] * WORKERS
    assert journal.read_text().split() == ["begin", "end"] * WORKERS


def apply_own_unlocked(worker: int) -> None:
    """What a claim of the own row alone would be."""
    mine = WebhookEvent.objects.filter(event_id=f"evt_{worker}", claimed_until__isnull=True)
    assert mine.update(claimed_until=NOW + LEASE)
    applying.apply(WebhookEvent.objects.get(event_id=f"evt_{worker}"), now=NOW)


def test_without_the_lock_on_the_object_they_overlap(journal: Path) -> None:
    for number in range(WORKERS):
        store(f"evt_{number}")
    assert run_at_once(apply_own_unlocked) == [0] * WORKERS
    assert overlaps(journal)


def apply_same(_worker: int) -> None:
    apply_event("evt_1", now=NOW)


def test_an_event_is_applied_by_one_of_ten(journal: Path) -> None:
    store()
    assert run_at_once(apply_same) == [0] * WORKERS
    assert journal.read_text().split() == ["begin", "end"]


def receive(_worker: int) -> None:
    receive_event(event_of(event()), source=WebhookEvent.Source.WEBHOOK, now=NOW)


def test_an_event_that_comes_ten_times_at_once_is_stored_once() -> None:
    assert run_at_once(receive) == [0] * WORKERS
    assert WebhookEvent.objects.count() == 1


def receive_if_new(_worker: int) -> None:
    """What storing would be without the key: look, then write."""
    if not WebhookEvent.objects.filter(type="invoice.paid").exists():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [STEP_S])
        store(f"evt_{os.getpid()}")


def test_looking_first_stores_it_more_than_once() -> None:
    assert run_at_once(receive_if_new) == [0] * WORKERS
    assert WebhookEvent.objects.count() > 1
