"""Gunicorn as the Procfile starts it, on a port of its own, and how soon it answers."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

from soulbox.embedded import POLL_INTERVAL_S

HOST = "127.0.0.1"
THREADS = 4
"""A worker has so many, as in the Procfile."""
START_LIMIT_S = 60
STOP_LIMIT_S = 60
ANSWER_LIMIT_S = 60
WARM_UPS = 5


@dataclass(frozen=True, slots=True)
class Web:
    """A server that runs: where it answers, and its main process."""

    port: int
    pid: int


@contextmanager
def web_server(application: str, *, workers: int, **more: str) -> Iterator[Web]:
    """Run so many worker processes; `more` is added to the environment."""
    port = _free_port()
    server = subprocess.Popen(  # noqa: S603 -- our own program, and no word of others'
        [
            sys.executable,
            "-m",
            "gunicorn",
            f"--workers={workers}",
            f"--threads={THREADS}",
            f"--bind={HOST}:{port}",
            "--config=python:soulbox.serving",
            "--no-control-socket",
            application,
        ],
        env={**os.environ, **more},
    )
    try:
        _wait_for(port)
        yield Web(port, server.pid)
    finally:
        server.terminate()
        server.wait(STOP_LIMIT_S)


def time_gets(
    port: int, path: str, *, count: int, headers: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return the milliseconds of so many answers, one by one, and the bytes of one.

    Each from the first byte sent to the last one read, on a connection of its own. Raises
    RuntimeError for another answer than 200.
    """
    taken: list[float] = []
    size = 0
    for number in range(WARM_UPS + count):
        began = time.perf_counter()
        asking = http.client.HTTPConnection(HOST, port, timeout=ANSWER_LIMIT_S)
        asking.request("GET", path, headers=dict(headers or {}))
        answer = asking.getresponse()
        size = len(answer.read())
        asking.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path} answers {answer.status}.")
        if number >= WARM_UPS:
            taken.append((time.perf_counter() - began) * 1000)
    percentiles = quantiles(taken, n=100)
    return {
        "requests": count,
        "median": round(percentiles[49], 1),
        "p95": round(percentiles[94], 1),
        "bytes": size,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_INTERVAL_S)
        else:
            return
