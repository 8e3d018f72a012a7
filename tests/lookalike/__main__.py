"""A look-alike that stands alone, for benchmarks: `python -m tests.lookalike --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from uuid import UUID

from tests.lookalike import Load, LookAlike


def main() -> None:
    """Serve so many containers of one load until a signal comes."""
    parser = argparse.ArgumentParser(prog="tests.lookalike", description=__doc__)
    parser.add_argument("--containers", type=int, default=100, help="how many run")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--delay", type=float, default=0, help="seconds that statistics take")
    parser.add_argument("--account", type=UUID, default=UUID(int=1), help="whose they are")
    parser.add_argument("--cgroup", type=int, default=2, choices=(1, 2), help="version")
    given = parser.parse_args()
    load = Load(
        cpu_ns_per_ms=250_000,
        memory_bytes=64 * 2**20,
        disk_write_bytes_per_ms=10,
        network_bytes_per_ms={"eth0": (100, 200)},
    )
    stops = {signal.SIGINT, signal.SIGTERM}
    # Before any thread is there: the loop's would take the signal otherwise.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    with LookAlike(given.socket, cgroup_version=given.cgroup) as engine:
        engine.stats_delay_s = given.delay
        for number in range(given.containers):
            engine.add(f"sandbox-{number}", given.account, load)
        sys.stdout.write(f"{given.containers} containers at {engine.endpoint}\n")
        sys.stdout.flush()
        signal.sigwait(stops)


if __name__ == "__main__":
    main()
