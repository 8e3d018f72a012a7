"""Celery worker nodes and a beat for rounds of kills, with a broker to themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

import redis
from celery import Celery

from tests.faults.rounds.points import Fault
from tests.processes import end_group, running, wait_until
from tests.soulbox.processes import descendants

APP = ("-m", "celery", "--quiet", "-A", "tests.faults.rounds.app")
QUEUES = ("billing", "aggregate")
NODES = 2
STARTED_WITHIN_S = 120
# Other tests use the first three: what their killed workers had in hand comes back there.
BROKER_DATABASE = 9

Victim = Literal["node", "process"]


@dataclass(frozen=True)
class Node:
    """A worker node; its stack ends it."""

    process: subprocess.Popen[bytes]
    stack: ExitStack

    def kill(self) -> None:
        """Kill the whole node outright. Its id is free then, so it is not asked to end later."""
        end_group(self.process, signal.SIGKILL)
        self.stack.close()


@dataclass
class Crew:
    """Worker nodes of one process each, all in process groups of their own."""

    environment: Mapping[str, str]
    logs: Path
    fault: Fault
    tick_s: float
    stack: ExitStack
    nodes: list[Node] = field(default_factory=list)

    def add_node(self) -> None:
        """Start a node; it takes its share of the work when it is up."""
        how = ("-Q", ",".join(QUEUES), "-n", f"{uuid4()}@%h", "-c", "1")
        alone = ("--without-gossip", "--without-mingle")
        stack = ExitStack()
        process = self._start(stack, "worker", *how, *alone, log="worker.log")
        self.nodes.append(Node(process, stack))

    def add_beat(self) -> None:
        """Start what sends the ticks."""
        schedule = str(self.logs / f"schedule-{uuid4()}")
        self._start(self.stack, "beat", "-s", schedule, log="beat.log")

    def _start(self, stack: ExitStack, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        return stack.enter_context(
            running(*APP, *arguments, env=self.environment, log=self.logs / log)
        )

    def wait_for_nodes(self) -> None:
        """Return when all nodes have forked their process."""
        wait_until(
            lambda: all(descendants(node.process.pid) for node in self.nodes),
            seconds=STARTED_WITHIN_S,
            what=f"the workers to start; {self.logs}",
        )

    def kill(self, pid: int, victim: Victim) -> None:
        """Kill the process outright, or the whole node it is of, and do as a supervisor would.

        A node forks another process by itself; another node has to be started.
        """
        if victim == "process":
            os.kill(pid, signal.SIGKILL)
            return
        (node,) = [node for node in self.nodes if pid in descendants(node.process.pid)]
        self.nodes.remove(node)
        node.kill()
        self.add_node()

    def send(self, task: str, *arguments: str, queue: str) -> None:
        """Send one message."""
        broker = self.environment["REDIS_URL"].replace("unix:", "redis+socket:")
        with Celery(
            broker=broker.replace("?db=", "?virtual_host="), set_as_current=False
        ) as sender:
            sender.send_task(task, arguments, queue=queue)

    def has_messages(self) -> bool:
        """Return whether the broker has any, waiting or not acknowledged."""
        with redis.Redis.from_url(self.environment["REDIS_URL"]) as client:
            return bool(client.exists("unacked", *QUEUES))


@contextmanager
def crew(environment: Mapping[str, str], logs: Path, *, of: str, tick_s: float) -> Iterator[Crew]:
    """Start the workers and wait for them; end all that is left afterwards."""
    fault = Fault(logs / "points")
    url = environment["REDIS_URL"].partition("?")[0] + f"?db={BROKER_DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    how = {
        "REDIS_URL": url,
        "FAULT": str(fault.path),
        "ROUNDS_OF": of,
        "ROUNDS_TICK_S": str(tick_s),
    }
    with ExitStack() as stack:
        workers = Crew({**environment, **how}, logs, fault, tick_s, stack)
        try:
            for _ in range(NODES):
                workers.add_node()
            workers.wait_for_nodes()
            yield workers
        finally:
            # Asked to end, an idle one would wait for a minute.
            for node in workers.nodes:
                node.kill()
