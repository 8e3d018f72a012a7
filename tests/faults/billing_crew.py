"""Celery workers and beats of a billing run, killed and started again while it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal
from uuid import uuid4

from django.db import connection

from tests.processes import end_group, running, wait_until
from tests.soulbox.processes import descendants

APP = ("-m", "celery", "--quiet", "-A", "tests.faults.billing_app")
AT_WORK = """
SELECT application_name FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'worker %'
   AND state = 'idle in transaction'
"""
STARTED_WITHIN_S = 60
TRIES = 100

Victim = Literal["process", "node", "beat"]


@dataclass(frozen=True)
class Pace:
    """How the workers take their work: a batch's accounts, and the time they sit on a claim.

    `held` is how long one may stand still in a transaction, if not as long as the product says.
    """

    batch: int
    pause_s: float
    held: str = ""
    unsafe: bool = False


@dataclass(frozen=True)
class Claim:
    """A worker's process has locked these accounts."""

    at: float
    pid: int
    what: str
    accounts: frozenset[str]


@dataclass
class Crew:
    """The worker nodes and the beats, each in a process group of its own."""

    environment: Mapping[str, str]
    logs: Path
    processes_a_node: int
    stack: ExitStack
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    beats: list[subprocess.Popen[bytes]] = field(default_factory=list)
    killed: list[tuple[float, frozenset[int]]] = field(default_factory=list)

    def add_node(self) -> None:
        number = f"{len(self.killed)}-{len(self.nodes)}"
        node = ("worker", "-Q", self.environment["BILLING_QUEUE"], "-n", f"{number}-{uuid4()}@%h")
        pool = ("-c", str(self.processes_a_node), "--without-gossip", "--without-mingle")
        self.nodes.append(self._start(*node, *pool, log=f"worker-{number}.log"))

    def add_beats(self, count: int) -> None:
        """Start beats, once all workers are up."""
        wait_until(
            lambda: all(len(descendants(n.pid)) >= self.processes_a_node for n in self.nodes),
            seconds=STARTED_WITHIN_S,
            what=f"all workers to start; {self.logs}",
        )
        for _ in range(count):
            self._add_beat()

    def _add_beat(self) -> None:
        schedule = str(self.logs / f"schedule-{uuid4()}")
        self.beats.append(self._start("beat", "-s", schedule, log="beat.log"))

    def _start(self, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        return self.stack.enter_context(
            running(*APP, *arguments, env=self.environment, log=self.logs / log)
        )

    def kill(self, victim: Victim, random: Random) -> bool:
        """Kill one outright, a worker in the middle of a batch, and start what nobody else would.

        Returns whether there was one to kill.
        """
        if victim == "beat":
            beat = self.beats.pop(0)
            self._note(beat.pid)
            end_group(beat, signal.SIGKILL)
            self._add_beat()
        elif in_batch := self.in_batch():
            self._kill_worker(random.choice(in_batch), with_its_node=victim == "node")
        else:
            return False
        return True

    def replace_nodes(self) -> None:
        """Restart one node after the other, each as whoever deploys does it."""
        for node in list(self.nodes):
            self.nodes.remove(node)
            # To the node alone: it waits for what its workers have in hand.
            node.terminate()
            self.add_node()
            node.wait(STARTED_WITHIN_S)

    def _kill_worker(self, pid: int, *, with_its_node: bool) -> None:
        if not with_its_node:
            # Its node forks another.
            self._note(pid)
            os.kill(pid, signal.SIGKILL)
            return
        (node,) = [node for node in self.nodes if pid in descendants(node.pid)]
        self.nodes.remove(node)
        self._note(*descendants(node.pid))
        end_group(node, signal.SIGKILL)
        self.add_node()

    def stop_one(self) -> int:
        """Let a worker stand still in the middle of a batch; return its process."""
        for _ in range(TRIES):
            wait_until(
                lambda: bool(self.in_batch()), seconds=STARTED_WITHIN_S, what=f"work; {self.logs}"
            )
            for pid in self.in_batch():
                os.kill(pid, signal.SIGSTOP)
                if pid in self.at_work():
                    self._note(pid)
                    return pid
                # It was just done with its batch.
                os.kill(pid, signal.SIGCONT)
        raise TimeoutError(f"no worker was caught in a batch; {self.logs}")

    def at_work(self) -> list[int]:
        """Return the worker processes that are inside a transaction, and not asking just now."""
        with connection.cursor() as cursor:
            cursor.execute(AT_WORK)
            pids = [int(name.split()[1]) for (name,) in cursor.fetchall()]
        ours = {pid for node in self.nodes for pid in descendants(node.pid)}
        return sorted(ours.intersection(pids))

    def in_batch(self) -> list[int]:
        """Return those of them that hold accounts: a sweep has other transactions too."""
        just_now = time.time() - float(self.environment["BILLING_PAUSE_S"])
        claiming = {claim.pid for claim in self.claims() if claim.at > just_now}
        return sorted(claiming.intersection(self.at_work()))

    def _note(self, *pids: int) -> None:
        self.killed.append((time.time(), frozenset(pids)))

    def claims(self) -> list[Claim]:
        """Return all claims so far, the first one first."""
        path = Path(self.environment["BILLING_CLAIMS"])
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [line.split() for line in lines]
        return sorted(
            (Claim(float(r[0]), int(r[1]), r[2], frozenset(r[3].split(","))) for r in rows),
            key=lambda claim: claim.at,
        )

    def taken_up_after_s(self) -> list[float]:
        """Return, for each process killed with accounts in hand, when the last one was taken up.

        In seconds after the kill. A process whose last batch was committed had none in hand.
        """
        claims = self.claims()
        delays = []
        for at, pids in self.killed:
            for pid in pids:
                of_pid = [claim for claim in claims if claim.pid == pid]
                if of_pid:
                    delays += _taken_up(of_pid[-1], at, claims)
        return delays


def _taken_up(lost: Claim, at: float, claims: list[Claim]) -> list[float]:
    """Return how long after `at` the last account of a claim was claimed again, if it was."""
    again: dict[str, float] = {}
    for claim in claims:
        if claim.at > lost.at and claim.pid != lost.pid and claim.what == lost.what:
            for account in claim.accounts & lost.accounts:
                again.setdefault(account, claim.at - at)
    return [max(again.values())] if again else []


@contextmanager
def crew(
    environment: Mapping[str, str], logs: Path, pace: Pace, *, nodes: int, processes_a_node: int
) -> Iterator[Crew]:
    """Start the workers, as yet without beats and maybe not up; end all that is left afterwards."""
    how = {
        "BILLING_QUEUE": f"billing-{uuid4()}",
        "BILLING_BATCH": str(pace.batch),
        "BILLING_PAUSE_S": str(pace.pause_s),
        "BILLING_HELD": pace.held,
        "BILLING_CLAIMS": str(logs / "claims"),
        "BILLING_UNSAFE": "1" if pace.unsafe else "",
    }
    with ExitStack() as stack:
        one = Crew({**environment, **how}, logs, processes_a_node, stack)
        for _ in range(nodes):
            one.add_node()
        yield one
