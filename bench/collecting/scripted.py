"""A look-alike of the engine, in a process of its own, that takes a second to answer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from django.conf import settings

from bench.collecting.measuring import (
    INTERVAL_S,
    Plan,
    add_throughput,
    measure_intervals,
    pass_cost,
)
from bench.collecting.report import Part
from metering.docker import DockerEngine

ROOT = Path(__file__).resolve().parent.parent.parent
DELAY_S = 1.0
STOP_LIMIT_S = 10


@dataclass(frozen=True, slots=True)
class Scripted:
    """A look-alike that listens, and whose containers it has."""

    pid: int
    endpoint: str
    account_id: UUID

    def engine(self) -> DockerEngine:
        """Return a client of it as the product would make one."""
        return DockerEngine(
            self.endpoint,
            concurrency=settings.METERING_CONCURRENCY,
            timeout_s=settings.METERING_CALL_TIMEOUT_S,
        )


@contextmanager
def look_alike(count: int, *, delay_s: float) -> Iterator[Scripted]:
    """Serve so many containers from another process, which takes so long over statistics."""
    account_id = uuid4()
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "engine.sock"
        process = subprocess.Popen(  # noqa: S603 -- this very program, with its own arguments
            [
                *(sys.executable, "-m", "tests.lookalike", "--containers", str(count)),
                *("--socket", str(socket), "--delay", str(delay_s)),
                *("--account", str(account_id)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            if process.stdout is None or not process.stdout.readline():
                raise ChildProcessError("the look-alike of the engine did not start")
            yield Scripted(process.pid, f"unix://{socket}", account_id)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def measure_scripted(plan: Plan) -> Part:
    """Read many containers of an engine that takes a second for each."""
    part = Part("look-alike of the engine, 1 s a call")
    with look_alike(plan.scripted, delay_s=DELAY_S) as scripted:
        engine = scripted.engine()
        ids = [found.container_id for found in engine.list_containers()]
        part.add("containers", len(ids), "containers")
        part.add("calls at once", settings.METERING_CONCURRENCY, "calls")
        cost = pass_cost(lambda: engine.read(ids), throughput_s=plan.throughput_s)
        add_throughput(part, "by engine", cost, len(ids))
        steady = measure_intervals(
            part,
            "by engine every 2 s",
            lambda: engine.read(ids),
            count=len(ids),
            intervals=plan.intervals,
            servers=[scripted.pid],
        )
        part.add(
            "by engine every 2 s: the look-alike's cpu of one sample",
            steady.servers_cpu_s / max(steady.readings, 1) * 1e6,
            "µs",
        )
        part.ratios["an interval over the time of one pass over all"] = INTERVAL_S / cost.wall_s
    return part
