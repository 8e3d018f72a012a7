"""Messages and batches that are no good, given to a running installation: what is behind flows."""

from __future__ import annotations

import json
import re

import pytest

from soulbox.messages import MOST_TRIES
from tests.faults.installation import RECOVERED_WITHIN_S, Installation, now_ms
from tests.processes import wait_until

pytestmark = pytest.mark.timeout(900)

QUEUE = "default"
NO_MESSAGES = ('{"broken', "[]", "{}", "null", '"text"', '{"properties": {}}', "")


def test_what_is_no_message_is_left_out_and_the_queue_flows(installation: Installation) -> None:
    with installation.redis() as broker:
        broker.lpush(QUEUE, *NO_MESSAGES, b"\xff\xfe")
    installation.wait_for_a_song()
    said = installation.log("worker")
    assert "message left out: it is no JSON" in said
    assert "Can't decode message body" in said
    # The worker that met them takes on.
    assert "Unrecoverable" not in said
    with installation.redis() as broker:
        assert broker.hlen("unacked") <= 4


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("no.such.task", (), "Received unregistered task"),
        ("soulbox.tasks.sing", ("one", "too", "many"), "takes 1 positional argument"),
        ("metering.tasks.aggregate", ("no uuid",), "badly formed hexadecimal UUID"),
    ],
)
def test_a_task_that_cannot_be_done_is_said_once_and_the_queue_flows(
    installation: Installation, task: str, arguments: tuple[str, ...], words: str
) -> None:
    installation.send(task, *arguments)
    installation.wait_for_a_song()
    wait_until(lambda: words in installation.log("worker"), seconds=RECOVERED_WITHIN_S, what=words)


def test_a_message_that_ends_its_workers_is_given_up_after_five(
    installation: Installation,
) -> None:
    installation.send("tests.end_worker")
    wait_until(
        lambda: "message given up" in installation.log("worker"),
        seconds=3 * RECOVERED_WITHIN_S,
        what=f"it to be given up; {installation.logs}",
    )
    installation.wait_for_a_song()
    ended = re.findall(r"exited with 'signal 9", installation.log("worker"))
    assert len(ended) == MOST_TRIES


def test_a_batch_that_cannot_be_read_is_refused_and_metering_goes_on(
    installation: Installation,
) -> None:
    refused = "SELECT count(*) FROM metering_refusal WHERE reason = 'batch_unreadable'"
    ((before,),) = installation.sql(refused)
    with installation.redis(1) as streams:
        number = streams.incr(f"metrics:sequence:{installation.host_id}")
        key = f"metrics:stream:{installation.host_id}"
        streams.xadd(key, {"n": number, "b": json.dumps({"samples": "none"})})
    installation.wait_for(refused, before, seconds=RECOVERED_WITHIN_S)
    state = installation.wait_for_readings_after(now_ms() + 3000)
    installation.assert_nothing_is_lost_or_counted_twice(state)
