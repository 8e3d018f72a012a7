from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import ProgrammingError, connection, transaction
from kombu import Connection

from soulbox.celery import app


@pytest.mark.parametrize(
    ("task", "interval_s"),
    [
        ("metering.tasks.collect_all", 2),
        ("metering.tasks.aggregate_all", 15),
        ("billing.tasks.sweep_billing", 15),
        ("billing.tasks.expire_credits", 3600),
    ],
)
def test_the_beat_ticks_as_often_as_the_design_says(task: str, interval_s: float) -> None:
    (entry,) = [entry for entry in app.conf.beat_schedule.values() if entry["task"] == task]
    assert entry["schedule"] == interval_s


def test_every_tick_is_an_interval_that_expires_with_itself() -> None:
    for entry in app.conf.beat_schedule.values():
        assert isinstance(entry["schedule"], int | float)
        assert entry["options"]["expires"] == entry["schedule"]


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_a_message_is_only_given_away_after_a_task_must_have_ended() -> None:
    conf = app.conf
    assert conf.task_soft_time_limit < conf.task_time_limit
    assert conf.task_time_limit < settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"] / 2
    with Connection(
        settings.CELERY_BROKER_URL, transport_options=conf.broker_transport_options
    ) as connection:
        # The settings name it in several places; what counts is what the channel has.
        assert getattr(connection.default_channel, "visibility_timeout") == 300  # noqa: B009 - only Redis' channels have it


def test_a_lost_worker_costs_no_task_and_messages_are_json() -> None:
    conf = app.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.accept_content == ["json"]
    assert conf.task_ignore_result
    assert conf.broker_channel_error_retry
    assert conf.result_backend is None


def cut_off(*_arguments: object, **_named: object) -> NoReturn:
    raise SoftTimeLimitExceeded


def out_of_order(*_arguments: object, **_named: object) -> NoReturn:
    raise ProgrammingError("can't change 'autocommit' now: connection in transaction status ACTIVE")


def answer() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])


def commit_and_be_cut_off() -> None:
    with pytest.MonkeyPatch.context() as patched, transaction.atomic():
        patched.setattr(connection, "commit", cut_off)
        patched.setattr(connection, "rollback", cut_off)
        patched.setattr(connection, "set_autocommit", out_of_order)


def go_on_and_lose_the_connection() -> None:
    # Autocommit is still off, so Django takes this for a block inside another one.
    with transaction.atomic():
        connection.close()


def begin_next_task() -> None:
    task = app.tasks["soulbox.tasks.sing"]
    signals.task_prerun.send(sender=task, task=task, task_id="next", args=(), kwargs={})
    signals.task_postrun.send(sender=task, task=task, task_id="next", args=(), kwargs={})


@pytest.mark.django_db(transaction=True)
def test_a_task_that_is_cut_off_as_it_commits_does_not_stop_those_after_it() -> None:
    app.loader.import_default_modules()

    def in_a_worker() -> int:
        try:
            assert answer() == 1
            with pytest.raises(ProgrammingError, match="can't change 'autocommit'"):
                commit_and_be_cut_off()
            go_on_and_lose_the_connection()
            # As Celery does between two tasks.
            connection.close()
            with pytest.raises(ProgrammingError, match="in an atomic block"):
                answer()
            begin_next_task()
            return answer()
        finally:
            connection.close()

    # A connection is its thread's own, so no other test has this one.
    with ThreadPoolExecutor(1) as worker:
        assert worker.submit(in_a_worker).result() == 1
