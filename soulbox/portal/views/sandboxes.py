"""What runs now, as far as it is counted; a part of the page refreshes by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from django.http import HttpRequest, HttpResponse

from metering.models import Life
from metering.period import from_ms
from soulbox.portal.pages import MemberView
from soulbox.portal.words import bytes_words, number_words

MOST_SHOWN = 200
MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that runs: since when, what it holds, and as of when that is known."""

    name: str
    since: datetime
    labels: str
    memory: str
    limit: str
    cpus: str
    read_at: datetime | None


class Sandboxes(MemberView):
    """The account's sandboxes that run."""

    template = "portal/sandboxes.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List the newest ones."""
        del request
        lives = Life.objects.filter(sandbox__account_id=self.account_id, ended_at__isnull=True)
        newest = lives.select_related("sandbox", "reading").order_by("-started_at", "pk")
        return self.page(
            self.template,
            running=[_running(life) for life in newest[:MOST_SHOWN]],
            count=lives.count(),
        )


class LiveSandboxes(Sandboxes):
    """The part of the page that is asked for again and again."""

    template = "portal/includes/sandboxes.html"


def _running(life: Life) -> Running:
    reading = getattr(life, "reading", None)
    is_read = reading is not None and reading.read_ms >= 0
    return Running(
        name=life.sandbox.sandbox_id,
        since=life.started_at,
        labels=", ".join(f"{name}={value}" for name, value in sorted(life.labels.items())),
        memory=bytes_words(reading.memory_bytes) if reading and is_read else "Not read yet",
        limit=bytes_words(life.memory_limit_bytes) if life.memory_limit_bytes else "None",
        cpus=number_words(Fraction(life.cpu_limit_micro, MILLION))
        if life.cpu_limit_micro
        else "No limit",
        read_at=from_ms(reading.read_ms) if reading and is_read else None,
    )
