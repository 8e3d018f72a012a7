"""What runs now, at its newest readings; a part of the page refreshes by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from django.http import HttpRequest, HttpResponse

from metering.live import RunningLife, running_lives
from soulbox.portal.pages import MemberView
from soulbox.portal.words import bytes_words, number_words

MOST_SHOWN = 200
MILLION = 10**6
UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that runs: since when, what it is doing, and as of when that is known."""

    name: str
    since: datetime
    labels: str
    cpu: str
    cpus: str
    memory: str
    limit: str
    received: str
    sent: str
    read_at: datetime | None
    is_live: bool


class Sandboxes(MemberView):
    """The account's sandboxes that run."""

    template = "portal/sandboxes.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List the newest ones."""
        del request
        running, count = running_lives(self.account_id, most=MOST_SHOWN, now=self.now)
        return self.page(self.template, running=[_running(life) for life in running], count=count)


class LiveSandboxes(Sandboxes):
    """The part of the page that is asked for again and again."""

    template = "portal/includes/sandboxes.html"


def _running(life: RunningLife) -> Running:
    reading = life.reading
    return Running(
        name=life.sandbox_id,
        since=life.started_at,
        labels=", ".join(f"{name}={value}" for name, value in sorted(life.labels.items())),
        cpu=UNKNOWN if reading.cpu_percent is None else f"{number_words(reading.cpu_percent)} %",
        cpus=UNKNOWN
        if reading.cpu_limit_micro is None
        else number_words(Fraction(reading.cpu_limit_micro, MILLION)),
        memory=_bytes(reading.memory_bytes),
        limit=_bytes(reading.memory_limit_bytes),
        received=_rate(reading.network_rx_rate),
        sent=_rate(reading.network_tx_rate),
        read_at=reading.at,
        is_live=reading.is_live,
    )


def _bytes(count: int | None) -> str:
    return UNKNOWN if count is None else bytes_words(count)


def _rate(bytes_a_second: Fraction | None) -> str:
    return UNKNOWN if bytes_a_second is None else f"{bytes_words(round(bytes_a_second))}/s"
