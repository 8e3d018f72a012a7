"""What Alertmanager has, looked at all the while, so that nothing that fires is missed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from http.client import HTTPException
from threading import Event, Thread
from typing import Self

from tests.live.stack import Stack
from tests.processes import wait_until

PATIENCE_S = 240
LOOK_EVERY_S = 0.5


class Watch:
    """The states in which each alert was seen, active or suppressed, while the block runs."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.seen: defaultdict[str, set[str]] = defaultdict(set)
        self._firing: dict[str, str] = {}
        self._is_over = Event()
        self._thread = Thread(target=self._look, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def until_seen(self, alerts: Collection[str], seconds: float = PATIENCE_S) -> None:
        """Return when each of them has been seen. Raises TimeoutError, naming the others."""
        try:
            wait_until(lambda: set(alerts) <= self.seen.keys(), seconds=seconds, what="")
        except TimeoutError:
            missing = sorted(set(alerts) - self.seen.keys())
            raise TimeoutError(f"{missing}: not seen in {seconds} s") from None

    def until_told(self, alerts: Collection[str], seconds: float = PATIENCE_S) -> None:
        """Return when each of them has been seen, and somebody was told of it."""
        self.until_seen(alerts, seconds)
        told = self._stack.pager.told
        wait_until(
            lambda: set(alerts) <= {name for _, name, state in list(told) if state == "firing"},
            seconds=seconds,
            what=f"somebody to be told of {sorted(alerts)}",
        )

    def until_gone(self, alerts: Collection[str], seconds: float = PATIENCE_S) -> None:
        """Return when none of them is there. Raises TimeoutError, naming those that are."""
        try:
            wait_until(lambda: not set(alerts) & self._firing.keys(), seconds=seconds, what="")
        except TimeoutError:
            left = sorted(set(alerts) & self._firing.keys())
            raise TimeoutError(f"{left}: still there after {seconds} s") from None

    def forget(self, alerts: Collection[str]) -> None:
        """See them anew."""
        for alert in alerts:
            self.seen.pop(alert, None)

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            with suppress(OSError, HTTPException):
                firing = self._stack.firing()
                for name, state in firing.items():
                    self.seen[name].add(state)
                self._firing = firing
