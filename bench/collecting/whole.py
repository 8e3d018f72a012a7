"""The whole collector: lives in PostgreSQL, batches in Redis, figures from the kernel's files.

Only discovery is of a look-alike of the engine: no machine of a benchmark runs thousands of
containers.
"""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings

from bench.aggregating import tables
from bench.aggregating.processes import Worker, cost_of
from bench.collecting.groups import control_groups, end, why_no_groups
from bench.collecting.measuring import INTERVAL_S, QUICK, Plan, add_errors
from bench.collecting.report import Part
from bench.collecting.scripted import look_alike
from metering import stream
from metering.cgroup import CgroupSource
from metering.collector import collect_host
from metering.resident import Remembering
from metering.samples import unpack
from metering.services import register_account, register_host
from soulbox.embedded import POLL_INTERVAL_S, Embedded, is_locked
from soulbox.reset import remove_home

STOP_LIMIT_S = 60
# A pass that is shown as many events as an engine remembers looks at every container anew.
STARTS_ARE_OVER_S = 6
ALL_ENTRIES = 10**9
# One interface, as a container has.
ISOLATED = "ip link add eth0 type bridge && echo made && exec sleep 600"


def measure_whole(plan: Plan) -> Part:
    """Collect on services made for it. Raises InUseError when they are in use."""
    part = Part("the whole collector")
    # To start two servers takes longer than to measure a few.
    part.skipped = "QUICK leaves it out" if plan is QUICK else why_no_groups()
    if part.skipped:
        return part
    embedded = settings.EMBEDDED
    if not isinstance(embedded, Embedded):
        raise TypeError("the benchmark runs on embedded services only")
    remove_home(embedded)
    try:
        # The servers stop with the last process that uses them: this one does not.
        with Worker() as worker:
            return worker.call(_measure, plan)
    finally:
        deadline = time.monotonic() + STOP_LIMIT_S
        while is_locked(embedded.keeper_lock) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        remove_home(embedded)


def _measure(plan: Plan) -> Part:
    part = Part("the whole collector")
    with look_alike(plan.groups, delay_s=0) as scripted, _network() as network:
        servers = tables.prepare()
        time.sleep(STARTS_ARE_OVER_S)
        now, host_id = datetime.now(UTC), uuid4()
        register_account(account_id=scripted.account_id, time_zone="UTC", registered_at=now)
        register_host(host_id=host_id, name="bench", endpoint=scripted.endpoint, now=now)
        engine = scripted.engine()
        processes = engine.find_pids([found.container_id for found in engine.list_containers()])
        with control_groups(processes, network=network) as files:
            source = Remembering(CgroupSource(engine, find_pids=engine.find_pids, files=files))
            began = time.monotonic()
            collect_host(host_id, now=datetime.now(UTC), source=source)
            part.add("sandboxes", len(processes), "sandboxes")
            part.add("the first pass, which records their lives", time.monotonic() - began, "s")
            tables.settle()
            after = _newest(host_id)
            late_ms: list[float] = []
            work = partial(_passes, host_id, source, plan.intervals, late_ms)
            cost = cost_of(work, servers)
            part.add("containers whose files are open", len(files.kept), "containers")
            files.close()
    length_s = max(cost.seconds, (plan.intervals + 1) * INTERVAL_S)
    part.add("every 2 s: passes", plan.intervals + 1, "passes")
    part.add(
        "every 2 s: samples missed",
        (plan.intervals + 1) * len(processes) - cost.samples,
        "samples",
    )
    add_errors(part, "every 2 s", _errors_ms(host_id, after))
    part.add("every 2 s: a pass begins late, at most", max(late_ms), "ms")
    part.add("every 2 s: cpu of one sample", cost.cpu_s / cost.samples * 1e6, "µs")
    part.ratios |= {
        "every 2 s: the collector's share of one core": cost.cpu_s / length_s,
        "every 2 s: Redis' share of one core": cost.redis_cpu_s / length_s,
        "every 2 s: PostgreSQL's share of one core": cost.postgresql_cpu_s / length_s,
    }
    return part


def _passes(host_id: UUID, source: Remembering, intervals: int, late_ms: list[float]) -> int:
    """Make passes at absolute times; return the samples sent."""
    samples, start = 0, time.monotonic()
    for tick in range(intervals + 1):
        deadline = start + tick * INTERVAL_S
        time.sleep(max(0.0, deadline - time.monotonic()))
        late_ms.append((time.monotonic() - deadline) * 1000)
        interval = timedelta(seconds=INTERVAL_S)
        samples += collect_host(
            host_id, now=datetime.now(UTC), source=source, interval=interval
        ).samples
    return samples


def _newest(host_id: UUID) -> str:
    *_, last = stream.read_after(host_id, "0-0", limit=ALL_ENTRIES)
    return last.entry_id


def _errors_ms(host_id: UUID, after: str) -> list[int]:
    """Return how far the intervals in the stream are from two seconds, of each life's readings."""
    times: dict[int, list[int]] = defaultdict(list)
    for entry in stream.read_after(host_id, after, limit=ALL_ENTRIES):
        samples = unpack(entry.packed).samples
        for life, read_ms in zip(
            samples["life"].tolist(), samples["read_ms"].tolist(), strict=True
        ):
            times[life].append(read_ms)
    return [
        abs(later - earlier - INTERVAL_S * 1000)
        for found in times.values()
        for earlier, later in pairwise(found)
    ]


@contextmanager
def _network() -> Iterator[Path]:
    """Give the counters of a network namespace with one interface."""
    process = subprocess.Popen(  # noqa: S603 -- constants
        ["/usr/bin/unshare", "--net", "sh", "-c", ISOLATED], stdout=subprocess.PIPE
    )
    try:
        if process.stdout is None or not process.stdout.readline():
            raise ChildProcessError("no network namespace could be made")
        yield Path(f"/proc/{process.pid}/net/dev")
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()
