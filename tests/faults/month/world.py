"""Acts a month out with the product, on a virtual clock, while everything goes wrong by chance.

Each stretch of work is done by a process of its own: it may be killed at any statement, done twice
at once, meet a database or a Redis that is killed or stands still, or be put off. Nobody repairs
anything by hand: what a sweep did not do, the next one does.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from uuid import UUID

import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError

from billing import services
from billing.credits import CreditKind
from billing.services import Gift as Given
from billing.totals import Tax
from metering.aggregator import aggregate_host
from metering.collector import collect_host
from metering.services import register_host
from metering.silence import close_silent_hosts
from metering.simulator import SCHEME, SimulatedSandbox
from metering.stream import StreamUnavailableError
from metering.summaries import summarise_touched_days
from soulbox import embedded
from soulbox.embedded import Embedded, is_locked
from tests.faults import dying
from tests.faults.dying import Work
from tests.faults.month.script import HOSTS, HOUR, Customer, Load, Month
from tests.metering.fleet import Lossy
from tests.processes import wait_until

TICK = 4 * HOUR
STRETCH = 6 * TICK
# Within so many statements a worker is killed: some stretches make few, some make many.
FEW_OR_MANY_STATEMENTS = (12, 50, 200, 800)
OUTAGES = (OperationalError, InterfaceError, StreamUnavailableError, redis.RedisError)
TRIES = 20
STILL_S = 0.3
BACK_WITHIN_S = 60


@dataclass(frozen=True)
class Chances:
    """How likely each thing goes wrong, in each stretch of work."""

    kill: float = 0.4
    twice: float = 0.15
    put_off: float = 0.15
    readings_lost: float = 0.15
    passes_left_out: float = 0.3
    batches_lost: float = 0.06
    redis_emptied: float = 0.02
    redis_killed: float = 0.01
    redis_stands_still: float = 0.02
    postgresql_killed: float = 0.01
    clock_steps: float = 0.1


NOTHING_WRONG = Chances(*[0.0] * 11)


@dataclass
class World:
    """The product and the services it stands on, with the month's customers in it."""

    month: Month
    chances: Chances
    draw: Random
    hosts: list[UUID] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    sources: list[Lossy] = field(default_factory=list)
    chosen: set[UUID] = field(default_factory=set)
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.month.start

    def open(self) -> None:
        """Open the accounts, and register the hosts that their sandboxes run on."""
        for customer in self.month.customers:
            start = customer.periods()[0][0]
            services.open_account(
                account_id=customer.account,
                name=f"Customer {customer.account}",
                now=start,
                time_zone=customer.zone,
                tax=Tax(Decimal(customer.tax_percent) / 100),
            )
            services.subscribe(customer.account, plan_code=customer.plan, now=start)
        for number in range(HOSTS):
            host_id = UUID(int=self.draw.getrandbits(128), version=4)
            name = f"host {number} of {self.month.seed}"
            register_host(host_id=host_id, name=name, endpoint=SCHEME, now=self.month.start)
            self.hosts.append(host_id)
            loads = [(c, load) for c in self.month.customers for load in c.loads]
            boxes = [_sandbox(c, load) for c, load in loads if load.host == number]
            source = Lossy(boxes, clock=lambda: self.now, random=Random(self.month.seed))  # noqa: S311 - repeatable
            self.sources.append(source)

    def meter(self) -> None:
        """Let everything that runs be measured and billed, until nothing runs any more.

        The last day is a calm one: what was lost shows by what comes after it.
        """
        self._meter_until(max([self.month.end, *(silence.end for silence in self.month.silences)]))
        with self.calm():
            self._meter_until(self.now + STRETCH)

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Let nothing go wrong for a while."""
        chances, self.chances = self.chances, NOTHING_WRONG
        yield
        self.chances = chances

    def _meter_until(self, end: datetime) -> None:
        while self.now < end:
            until = min(self.now + STRETCH, end)
            self._customers_act(until)
            self._collect(until)
            self.now = until
            if not self.happens("put_off"):
                self.fold()
            self.sweep()

    def fold(self) -> None:
        """Fold what the hosts' streams hold, and bring the days up to date."""
        now = self.now

        def work() -> None:
            for host_id in self.hosts:
                aggregate_host(host_id, now=now)
            summarise_touched_days(now=now)

        self.work(work)

    def sweep(self) -> None:
        """Do what the billing sweeps do, now, or an hour beside it where the clock stepped."""
        now = self.now
        if self.happens("clock_steps"):
            now += self.draw.choice((-HOUR, HOUR))
        self.work(lambda: sweep_billing(now))

    def happens(self, what: str) -> bool:
        """Draw whether something goes wrong, and note it."""
        goes_wrong: bool = self.draw.random() < getattr(self.chances, what)
        self.faults[what] += goes_wrong
        return goes_wrong

    def work(self, work: Work) -> None:
        """Have it done, again and again until it is done once without an end in the middle."""
        began: float | None = None
        for _ in range(TRIES):
            outage = self._outage()
            again = 2 if self.happens("twice") else 1
            kills = [self._kill_after() for _ in range(again)]
            calls_off = OUTAGES if outage else ()
            children = [dying.begin(work, kill_after=at, calls_off=calls_off) for at in kills]
            if outage:
                time.sleep(self.draw.uniform(0.0, 0.05))
                outage()
            ends = [dying.end(child) for child in children]
            if outage:
                embedded.start(_keeper())
            self.faults["kill"] += ends.count(-signal.SIGKILL)
            if 1 in ends:
                raise AssertionError(f"A worker failed at {self.now}.")
            if 0 in ends:
                if began is not None:
                    self.recoveries_s.append(time.monotonic() - began)
                return
            began = began or time.monotonic()
        raise AssertionError(f"Nobody finished the work at {self.now}.")

    def _kill_after(self) -> int | None:
        is_killed = self.draw.random() < self.chances.kill
        most = self.draw.choice(FEW_OR_MANY_STATEMENTS)
        return self.draw.randrange(1, most) if is_killed else None

    def _outage(self) -> Callable[[], None] | None:
        """Return what lets a server die, or stand still for a while."""
        if self.happens("postgresql_killed"):
            return lambda: _kill(_postgresql_pid())
        if self.happens("redis_killed"):
            return lambda: _kill(_redis_pid())
        if self.happens("redis_stands_still"):
            return _stand_still
        return None

    def _collect(self, until: datetime) -> None:
        """Make the passes up to `until`; a collector that is killed goes on with that pass."""
        ticks = list(_moments(self.now, until, TICK))
        left_out = set()
        if self.happens("passes_left_out"):
            first = self.draw.randrange(len(ticks))
            left_out = set(range(first, first + self.draw.randrange(1, 5)))
        losing = self.draw.uniform(0.1, 0.6) if self.happens("readings_lost") else 0.0
        for source in self.sources:
            source.share = losing
        at = Shared()

        def passes() -> None:
            for number, moment in enumerate(ticks):
                if number < at.value or number in left_out:
                    continue
                at.value = number
                self.now = moment
                for host, host_id in enumerate(self.hosts):
                    if not self._is_silent(host, moment):
                        collect_host(host_id, now=moment, source=self.sources[host], interval=TICK)
                close_silent_hosts(now=moment)

        self.work(passes)
        if self.happens("batches_lost"):
            self._lose_batches()
        if self.happens("redis_emptied"):
            with redis.Redis.from_url(settings.STREAM_REDIS_URL) as client:
                client.flushdb()

    def _is_silent(self, host: int, moment: datetime) -> bool:
        return any(s.host == host and s.start <= moment < s.end for s in self.month.silences)

    def _lose_batches(self) -> None:
        """Take some of the newest entries out of the streams, folded or not."""
        with redis.Redis.from_url(settings.STREAM_REDIS_URL) as client:
            for host_id in self.hosts:
                key = f"metrics:stream:{host_id}"
                newest = [entry for entry, _ in client.xrevrange(key, count=12)]
                if lost := [entry for entry in newest if self.draw.random() < 0.3]:
                    client.xdel(key, *lost)

    def _customers_act(self, until: datetime) -> None:
        """Let customers choose plans and staff give credit, whose moment has come."""
        for customer in self.month.customers:
            if (
                customer.choice
                and customer.choice[0] < until
                and customer.account not in self.chosen
            ):
                at, plan = customer.choice
                services.choose_plan(customer.account, plan_code=plan, now=at)
                self.chosen.add(customer.account)
            if customer.gift and customer.gift.at < until:
                give(customer)


class Shared:
    """A number that a process and its forks see alike."""

    def __init__(self) -> None:
        self._kept = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int.from_bytes(self._kept[:8], "big")

    @value.setter
    def value(self, value: int) -> None:
        self._kept[:8] = value.to_bytes(8, "big")


def sweep_billing(now: datetime) -> None:
    """Do what has become due, as the tasks do it."""
    services.grant_due_credits(now)
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)
    services.expire_due_credits(now)


def give(customer: Customer) -> None:
    """Give the customer its credit, once however often it is asked for."""
    gift = customer.gift
    if gift is None:
        raise ValueError(f"{customer.account} is given nothing.")
    given = Given(
        kind=CreditKind.PREPAID if gift.prepaid else CreditKind.PROMOTIONAL,
        amount=Decimal(gift.dollars),
        reason="A gift",
        reference="gift",
        expires_at=None if gift.prepaid else customer.periods()[0][1],
    )
    services.grant_credit(customer.account, given, now=gift.at)


def _sandbox(customer: Customer, load: Load) -> SimulatedSandbox:
    return SimulatedSandbox(
        container_id=load.container,
        sandbox_id=load.sandbox,
        account_id=str(customer.account),
        started_at=load.start,
        ended_at=load.end,
        cpu_ns_per_ms=load.cpu_ns_per_ms,
        memory_bytes=load.memory_bytes,
        tx_bytes_per_ms=load.tx_bytes_per_ms,
    )


def _moments(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    while start < end:
        yield start
        start += step


def _postgresql_pid() -> int:
    folder = Path(settings.HOME, "postgresql", "postmaster.pid")
    return int(folder.read_text().splitlines()[0])


def _redis_pid() -> int:
    with redis.Redis.from_url(settings.STREAM_REDIS_URL) as client:
        return int(client.info("server")["process_id"])


def _kill(pid: int) -> None:
    """Kill a server outright; return when its keeper is gone, and can be asked for another."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_locked(_keeper().ready_lock), seconds=BACK_WITHIN_S, what="the end")


def _keeper() -> Embedded:
    if settings.EMBEDDED is None:
        raise RuntimeError("Servers of somebody else are not killed.")
    return settings.EMBEDDED


def _stand_still() -> None:
    pid = _redis_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STILL_S)
    os.kill(pid, signal.SIGCONT)
