"""Known loads in real containers, through a real Celery worker, Redis and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import docker
import pytest
from django.db import connection, transaction
from django.db.models import QuerySet, Sum
from rest_framework.test import APIClient

from billing.services import draft_current_period, issue_api_key, open_account
from metering.aggregator import aggregate_host
from metering.meters import Meter
from metering.models import (
    CounterReset,
    Gap,
    Host,
    InterfaceReading,
    Life,
    LifeReading,
    NetworkUsageRecord,
    Refusal,
    UsageRecord,
)
from metering.period import Period, from_ms, to_ms
from metering.queries import coverage, newest_reading_at, usage_by_label, usage_totals
from tests.processes import end_group, wait_until
from tests.real.conftest import IMAGE, CpuWatch, Workers, net_dev, run_docker

pytestmark = pytest.mark.real

MIB = 2**20
MEMORY_BYTES = 48 * MIB
SENT_BYTES = 10_000_000
WRITTEN_BYTES = 8 * MIB
TICK_MS = 2000
BUSY = "while :; do :; done"
# Longer than any test; a container that is done with its load waits for its last reading.
IDLE = "sleep 600"


@dataclass
class Loads:
    """The containers that were run, by sandbox id, and what was seen of them from outside."""

    account_id: UUID
    host_id: UUID
    containers: dict[str, str]
    cpu: CpuWatch
    network: dict[str, tuple[int, int]]
    collecting: subprocess.Popen[bytes]
    end: datetime
    source: str = ""

    def lives(self, sandbox_id: str) -> QuerySet[Life]:
        return Life.objects.filter(host_id=self.host_id, sandbox__sandbox_id=sandbox_id).order_by(
            "started_ns"
        )

    def reading(self, sandbox_id: str) -> LifeReading:
        return LifeReading.objects.get(life=self.lives(sandbox_id).get())

    @property
    def period(self) -> Period:
        return Period(self.end - timedelta(days=1), self.end + timedelta(days=1))


def block_device() -> str:
    """Return the whole disk below Docker's folder, for a throttle that never bites."""
    number = Path("/var/lib/docker").stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    return f"/dev/{name}"


@pytest.fixture(scope="module")
def api_account_id(committed: None) -> UUID:
    del committed
    return open_account(name="Busy", now=datetime.now(UTC) - timedelta(days=1)).pk


@pytest.fixture(scope="module")
def loads(
    engine: docker.DockerClient,
    workers: Workers,
    account_id: UUID,
    host_id: UUID,
    api_account_id: UUID,
) -> Iterator[Loads]:
    """Run every load at once, and return when all of it is aggregated."""
    containers: dict[str, str] = {}

    def start(sandbox_id: str, command: str, *options: str, account: str = str(account_id)) -> str:
        labels = [
            f"--label=soulbox.sandbox_id={sandbox_id}",
            f"--label=soulbox.account_id={account}",
        ]
        container_id = run_docker("run", "-d", *labels, *options, IMAGE, "sh", "-c", command)
        containers[sandbox_id] = container_id
        return container_id

    network = f"soulbox-test-{host_id}"
    run_docker("network", "create", network)
    with ExitStack() as stack:
        stack.callback(run_docker, "network", "rm", network)
        stack.callback(lambda: run_docker("rm", "-f", *containers.values()))
        collecting = stack.enter_context(workers.work("auto"))
        stack.enter_context(workers.beat())
        # In an account of its own, so that what the API shows is this one container's.
        busy = start("busy", BUSY, "--cpus", "0.5", account=str(api_account_id))
        cpu = CpuWatch(busy)
        stack.callback(cpu.stop)
        start("memory", f"dd if=/dev/zero of=/dev/shm/x bs=1M count=48; {IDLE}")
        server = start("server", f"{IDLE} | nc -l -p 9000 >/dev/null; {IDLE}", "--network", network)
        # By address: a static busybox cannot ask Docker's name server.
        networks = engine.api.inspect_container(server)["NetworkSettings"]["Networks"]
        address = networks[network]["IPAddress"]
        start(
            "client",
            f"sleep 1; head -c {SENT_BYTES} /dev/zero | nc {address} 9000; {IDLE}",
            *("--network", network),
        )
        start(
            "disk",
            f"dd if=/dev/zero of=/file bs=1M count=8 oflag=direct; {IDLE}",
            *("--device-write-bps", f"{block_device()}:1gb"),
        )
        start("host-network", IDLE, "--network", "host")
        start("short", "sleep 1", "--label=soulbox.label.team=search")
        start("unknown-account", IDLE, account=str(host_id))
        restarted = start("restarted", BUSY, "--cpus=0.2", "--label=soulbox.label.team=ads")
        time.sleep(6)
        run_docker("restart", "-t", "0", restarted)
        time.sleep(6)
        seen = {name: eth0(engine, containers[name]) for name in ("client", "server")}
        run_docker("stop", "-t", "0", restarted)
        run_docker("rm", "-f", restarted)
        end = datetime.now(UTC)
        found = Loads(account_id, host_id, containers, cpu, seen, collecting, end)
        what = f"aggregation; logs in {workers.folder}"
        wait_until(lambda: is_aggregated(found), seconds=60, what=what)
        found.source = Host.objects.get(pk=host_id).source
        yield found


def eth0(engine: docker.DockerClient, container_id: str) -> tuple[int, int]:
    return net_dev(engine.api.inspect_container(container_id)["State"]["Pid"])["eth0"]


@pytest.fixture(scope="module")
def by_engine(loads: Loads, workers: Workers) -> Iterator[None]:
    """Have a worker take over whose figures the engine gives, and return when it is aggregated."""
    with workers.work("engine", METERING_SOURCE="engine"):
        host = Host.objects.filter(pk=loads.host_id)
        wait_until(host.filter(source="engine").exists, seconds=30, what="the second worker")
        end_group(loads.collecting, signal.SIGTERM)
        until = datetime.now(UTC) + timedelta(milliseconds=TICK_MS)

        def is_folded() -> bool:
            # Not waiting for the beat: that it folds was seen before.
            aggregate_host(loads.host_id, now=datetime.now(UTC))
            return (newest_reading_at(loads.account_id) or loads.end) > until

        wait_until(is_folded, seconds=60, what=f"two passes; logs in {workers.folder}")
        yield


def is_aggregated(loads: Loads) -> bool:
    newest = newest_reading_at(loads.account_id)
    restarted = loads.lives("restarted")
    return (
        newest is not None
        and newest > loads.end + timedelta(seconds=4)
        and restarted.count() == 2
        and not restarted.filter(ended_at__isnull=True).exists()
        and not loads.lives("short").filter(ended_at__isnull=True).exists()
    )


def see_one_moment() -> None:
    """Let the transaction's queries not see what is folded between them."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def check_cpu(loads: Loads) -> None:
    reading = loads.reading("busy")
    before, after = (loads.cpu.at(reading.read_ms + sign * TICK_MS) for sign in (-1, 1))
    assert 0 < before <= reading.cpu_ns <= after


def test_cpu_lies_between_the_kernels_counter_a_tick_before_and_after(loads: Loads) -> None:
    check_cpu(loads)


def test_a_worker_beside_its_containers_reads_the_kernels_files_unasked(loads: Loads) -> None:
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    assert loads.source == f"cgroup v{version}"


def test_lives_go_on_unbroken_when_the_engine_gives_the_figures(
    loads: Loads, by_engine: None
) -> None:
    del by_engine
    assert Host.objects.get(pk=loads.host_id).source == "engine"
    check_cpu(loads)
    check_sums(loads)
    check_memory(loads)
    lives = Life.objects.filter(host_id=loads.host_id)
    assert lives.filter(container_id=loads.containers["busy"]).count() == 1
    assert not CounterReset.objects.filter(life__in=lives).exists()


def test_the_api_shows_usage_up_to_as_of_and_cost_is_usage_times_price(
    loads: Loads, api_account_id: UUID
) -> None:
    issued = issue_api_key(api_account_id, name="test", now=datetime.now(UTC))
    answer = APIClient().get(
        "/api/v1/usage/current", headers={"Authorization": f"Bearer {issued.key}"}
    )
    assert answer.status_code == 200, answer.content
    shown = answer.json()
    cpu_seconds = Decimal(shown["usage"]["cpu_seconds"])
    as_of_ms = to_ms(datetime.fromisoformat(shown["as_of"]))
    before, after = (loads.cpu.at(as_of_ms + sign * TICK_MS) for sign in (-1, 1))
    assert 0 < before <= cpu_seconds * 10**9 <= after
    # Shown to twelve decimals; usage has nine and the price six.
    cost = Decimal(shown["cost"]["cpu_cost"])
    assert abs(cost - cpu_seconds * Decimal("0.000012")) < Decimal("1e-12")


def test_an_invoice_of_the_month_can_be_drafted_from_it(loads: Loads, api_account_id: UUID) -> None:
    invoice = draft_current_period(api_account_id, now=datetime.now(UTC))
    assert invoice.status == invoice.Status.DRAFT
    lines = {line.meter: int(line.quantity) for line in invoice.lines.all()}
    assert lines[Meter.CPU] >= loads.reading("busy").cpu_ns > 0
    assert lines[Meter.MEMORY] > 0


def test_a_segments_records_sum_to_its_last_reading(loads: Loads) -> None:
    check_sums(loads)


@transaction.atomic
def check_sums(loads: Loads) -> None:
    see_one_moment()
    lives = Life.objects.filter(host_id=loads.host_id)
    assert lives.count() >= 9
    for life in lives:
        reading = LifeReading.objects.get(life=life)
        for counter in ("cpu_ns", "disk_read_bytes", "disk_write_bytes"):
            total = UsageRecord.objects.filter(life=life).aggregate(n=Sum(counter))["n"] or 0
            base = getattr(reading, f"base_{counter}")
            assert total == getattr(reading, counter) - base, (life, counter)
    for interface in InterfaceReading.objects.filter(life__host_id=loads.host_id):
        totals = NetworkUsageRecord.objects.filter(interface=interface).aggregate(
            rx=Sum("rx_bytes"), tx=Sum("tx_bytes")
        )
        assert totals["rx"] == interface.rx_bytes - interface.base_rx_bytes
        assert totals["tx"] == interface.tx_bytes - interface.base_tx_bytes


def test_memory_that_was_touched_is_measured(loads: Loads) -> None:
    check_memory(loads)


def check_memory(loads: Loads) -> None:
    reading = loads.reading("memory")
    assert MEMORY_BYTES <= reading.memory_bytes <= MEMORY_BYTES + 8 * MIB
    totals = UsageRecord.objects.filter(life=reading.life_id).aggregate(
        byte_ms=Sum("memory_byte_ms"), measured=Sum("measured_ms")
    )
    mean = totals["byte_ms"] / totals["measured"]
    assert MEMORY_BYTES * 0.9 <= mean <= MEMORY_BYTES + 8 * MIB


@pytest.mark.parametrize(("sandbox_id", "direction"), [("client", "tx"), ("server", "rx")])
def test_bytes_over_a_bridge_are_counted_as_the_kernel_counts_them(
    loads: Loads, sandbox_id: str, direction: str
) -> None:
    interface = InterfaceReading.objects.get(life=loads.lives(sandbox_id).get(), name="eth0")
    counted = getattr(interface, f"{direction}_bytes")
    assert SENT_BYTES <= counted <= SENT_BYTES * 1.1
    # All was sent when the kernel was asked; later only a little chatter may have come.
    seen = loads.network[sandbox_id][("rx", "tx").index(direction)]
    assert seen <= counted <= seen + 10_000


def test_bytes_written_are_counted_exactly(loads: Loads) -> None:
    assert loads.reading("disk").disk_write_bytes == WRITTEN_BYTES


def test_a_container_on_the_hosts_network_has_no_network_of_its_own(loads: Loads) -> None:
    life = loads.lives("host-network").get()
    assert life.network_unmetered == Life.NetworkUnmetered.HOST
    assert not InterfaceReading.objects.filter(life=life).exists()


def test_a_restart_ends_a_life_and_the_next_counts_from_zero(loads: Loads) -> None:
    first, second = loads.lives("restarted")
    assert first.container_id == second.container_id
    for life in (first, second):
        reading = LifeReading.objects.get(life=life)
        assert life.counts_from_zero
        assert life.ended_at is not None
        assert 0 < reading.cpu_ns < 6 * 10**9 * 0.2 * 1.5
        records = UsageRecord.objects.filter(life=life)
        assert all(record.cpu_ns >= 0 for record in records)
        assert min(record.opening_cpu_ns for record in records) == 0
        ran_ms = (life.ended_at - life.started_at) / timedelta(milliseconds=1)
        running_ms = records.aggregate(n=Sum("running_ms"))["n"]
        assert abs(running_ms - ran_ms) <= 1
        assert life is second or life.ended_at <= second.started_at


def test_a_life_of_one_second_is_recorded_with_its_running_time(
    loads: Loads, engine: docker.DockerClient
) -> None:
    life = loads.lives("short").get()
    state = engine.api.inspect_container(loads.containers["short"])["State"]
    assert life.ended_at is not None
    assert life.ended_at.isoformat()[:23] == state["FinishedAt"][:23]
    ran_ms = (life.ended_at - life.started_at) / timedelta(milliseconds=1)
    # The engine notes the start a moment after the process began.
    assert 900 <= ran_ms < 2000
    record = UsageRecord.objects.get(life=life)
    assert record.running_ms == ran_ms
    unmeasured = Gap.objects.filter(life=life, meter="memory")
    gap_ms = sum((gap.end - gap.start) / timedelta(milliseconds=1) for gap in unmeasured)
    assert record.measured_ms + gap_ms == record.running_ms


def test_a_containers_own_labels_stay_with_each_of_its_lives(loads: Loads) -> None:
    assert loads.lives("short").get().labels == {"team": "search"}
    assert [life.labels for life in loads.lives("restarted")] == [{"team": "ads"}] * 2
    assert loads.lives("memory").get().labels == {}
    by_team = usage_by_label(loads.account_id, loads.period, name="team")
    assert set(by_team) == {"search", "ads", None}


@transaction.atomic
def test_running_time_is_measured_or_a_gap_says_why(loads: Loads) -> None:
    see_one_moment()
    covered = coverage(loads.account_id, loads.period)
    gaps = Gap.objects.filter(life__sandbox__account_id=loads.account_id, meter="memory")
    gap_ms = sum((gap.end - gap.start) / timedelta(milliseconds=1) for gap in gaps)
    assert covered.running_ms == covered.measured_ms + gap_ms
    # How much is measured depends on how busy the machine is that the tests run on.
    assert covered.measured_ms / covered.running_ms > 0.5


@transaction.atomic
def test_the_accounts_usage_is_the_sum_of_its_sandboxes(loads: Loads) -> None:
    see_one_moment()
    totals = usage_totals(loads.account_id, loads.period)
    records = UsageRecord.objects.filter(life__sandbox__account_id=loads.account_id)
    assert totals[Meter.CPU] == records.aggregate(n=Sum("cpu_ns"))["n"]
    assert totals[Meter.NETWORK_EGRESS] >= SENT_BYTES


def test_a_container_of_an_unknown_account_is_refused_by_name(loads: Loads) -> None:
    refused = loads.containers["unknown-account"]
    refusal = Refusal.objects.get(host_id=loads.host_id, subject=refused)
    assert refusal.reason == Refusal.Reason.ACCOUNT_UNKNOWN
    assert str(loads.host_id) in refusal.detail


def test_every_container_is_read_in_every_tick(loads: Loads) -> None:
    reading = loads.reading("host-network")
    life = loads.lives("host-network").get()
    ticks = (from_ms(reading.read_ms) - life.started_at) / timedelta(milliseconds=TICK_MS)
    assert reading.sample_count >= 0.8 * ticks
