from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from metering.meters import Meter
from metering.models import Gap, Host, Life
from metering.queries import streams_behind_of
from metering.removing import plan_removal, remove_host
from metering.services import register_host
from metering.silence import close_silent_hosts
from tests.metering.fleet import MINUTE, START, Fleet

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_host_is_read_once_more_folded_and_metered_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(2 * MINUTE)
    fleet.run_without_aggregating(ticks=3)
    monkeypatch.setattr("metering.collector.open_source", lambda _host: fleet.source)
    planned = plan_removal(fleet.host_id)
    assert (planned.running, planned.left) == ((f"sbx-1 of {fleet.account_id}",), 3)
    assert Host.objects.get().is_active
    fleet.now += timedelta(seconds=5)
    done = remove_host(fleet.host_id, now=fleet.now)
    assert (done.running, done.left, done.problem) == (planned.running, 0, "")
    assert done.folded > 0
    assert not Host.objects.get().is_active
    # To the last moment, and not beyond.
    assert fleet.usage()[Meter.CPU] == fleet.closed_form()[Meter.CPU]
    used = fleet.usage()
    assert Life.objects.get().ended_at == fleet.now
    assert not Gap.objects.filter(reason=Gap.Reason.HOST_SILENT).exists()
    # No invoice waits for it.
    assert streams_behind_of({fleet.account_id: fleet.now}) == {}
    again = remove_host(fleet.host_id, now=fleet.now + MINUTE)
    assert (again.folded, again.left, again.running) == (0, 0, ())
    close_silent_hosts(now=fleet.now + MINUTE)
    assert fleet.usage() == used


def test_a_host_that_answers_no_more_is_removed_all_the_same() -> None:
    host = register_host(
        host_id=uuid4(), name="gone", endpoint="unix:///nowhere/docker.sock", now=START
    )
    done = remove_host(host.pk, now=START + MINUTE)
    assert "/nowhere/docker.sock" in done.problem
    host.refresh_from_db()
    assert not host.is_active


def test_the_command_takes_a_name_and_says_what_it_did() -> None:
    fleet = Fleet()
    fleet.add("sbx-1")
    fleet.run(MINUTE)
    out = StringIO()
    call_command("remove_host", fleet.host.name, "--dry-run", "--json", stdout=out)
    assert json.loads(out.getvalue())["running"] == [f"sbx-1 of {fleet.account_id}"]
    assert Host.objects.get().is_active
    call_command("remove_host", str(fleet.host_id), stdout=out)
    assert f"collect.{fleet.host_id}" in out.getvalue()
    assert not Host.objects.get().is_active
    with pytest.raises(CommandError, match=f"There are: {fleet.host.name}"):
        call_command("remove_host", "another")
