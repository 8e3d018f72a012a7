"""The local Stripe-compatible server, started and steered by tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60
API_KEY = "sk_test_local"
SECRET = "whsec_local"  # noqa: S105 - signs what only tests receive
Answer = Any


class LocalStripe:
    """A server process of its own while the `with` block runs; see docs/local-stripe.md."""

    def __init__(self, *arguments: str, cache: Path | None = None) -> None:
        self._arguments = ["--announce-port-on-stdout", *arguments]
        if cache is not None:
            self._arguments += ["--cache", str(cache)]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Its number, while it runs."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, and return when it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soulbox.local_stripe", *self._arguments],
            cwd=ROOT,
            env={**os.environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the local server did not start"

    def stop(self) -> None:
        """End the process, gently if it lets itself."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def ask(self, method: str, path: str, **given: Any) -> Answer:
        """Ask the control API. Raises RuntimeError with what it says when it refuses."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request(method, f"/_local/{path}", body=json.dumps(given))
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {body}")
        return json.loads(body)

    def reset(self, *, seed: int | None = None, search_lag_s: int = 0) -> None:
        """Forget everything, endpoints, faults and clock too, but not violations."""
        self.ask("POST", "reset", seed=seed, search_lag_s=search_lag_s)

    def now(self) -> int:
        """Return the server's time in unix seconds."""
        return int(self.ask("GET", "clock")["now"])

    def set_clock(self, now: float, *, frozen: bool = True) -> None:
        """Set the server's time; nothing happens on the way."""
        self.ask("PUT", "clock", now=now, frozen=frozen)

    def advance(self, seconds: float = 0, *, to: float | None = None) -> None:
        """Move the server's time on; what is due on the way happens."""
        self.ask("POST", "clock/advance", **({"seconds": seconds} if to is None else {"to": to}))

    def fault(self, kind: str, operation: str = "*", **more: Any) -> None:
        """Let the nth call from now of an operation (nth=1, times=1, seconds=60) go wrong."""
        self.ask("POST", "faults", kind=kind, operation=operation, **more)

    def random_faults(
        self,
        seed: int,
        probabilities: dict[str, float],
        operations: list[str] | None = None,
        *,
        seconds: float = 60,
    ) -> None:
        """Let calls go wrong by chance: the same seed, the same calls."""
        self.ask(
            "PUT",
            "faults/random",
            seed=seed,
            probabilities=probabilities,
            operations=operations or ["*"],
            seconds=seconds,
        )

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self.ask("DELETE", "faults")

    def webhooks(self, url: str | None = None, secret: str = SECRET, **policy: Any) -> Answer:
        """Set the endpoint and the policy (when, copies, order, drop, seed, ...)."""
        if url is not None:
            policy["endpoints"] = [{"url": url, "secret": secret}]
        return self.ask("PUT", "webhooks", **policy)

    def deliver(self, *events: str, **policy: Any) -> int:
        """Deliver what is held, or these events again; return how many, when it is done."""
        named = {"events": list(events)} if events else {}
        return int(self.ask("POST", "webhooks/deliver", **named, **policy)["events"])

    def settle(self) -> None:
        """Return when no delivery is under way."""
        self.ask("POST", "webhooks/settle")

    def deliveries(self) -> list[Answer]:
        """Return every delivery: event, type, object, status, answer."""
        return list(self.ask("GET", "webhooks")["deliveries"])

    def charges(self, *, succeeded: bool = True) -> list[Answer]:
        """Return charges with their `invoice`, oldest first; failed ones too if asked."""
        every = self.ask("GET", "charges")
        return [one for one in every if one["status"] == "succeeded" or not succeeded]

    def ledger(self) -> dict[str, dict[str, int]]:
        """Return charged, refunded, disputed, gross, fees and net by currency."""
        return dict(self.ask("GET", "ledger"))

    def violations(self) -> list[Answer]:
        """Return requests that Stripe would not know, and answers it would not give."""
        return list(self.ask("GET", "violations"))

    def clear_violations(self) -> None:
        """Forget those, in a test that means them."""
        self.ask("DELETE", "violations")

    def log(self, operation: str | None = None) -> list[Answer]:
        """Return the calls of Stripe's API, oldest first."""
        every = self.ask("GET", "log")
        return [one for one in every if operation in (None, one.get("operation"))]

    def attach(self, customer: str, token: str = "pm_card_visa", **more: Any) -> Answer:  # noqa: S107 - a test card
        """Add a test card as its customer does; `default=False`, `card={"exp_year": ...}`."""
        return self.ask("POST", f"customers/{customer}/attach", token=token, **more)

    def detach(self, method: str) -> Answer:
        """Remove a card as its customer does in the portal."""
        return self.ask("POST", f"payment_methods/{method}/detach")

    def make_default(self, method: str) -> Answer:
        """Make a card the default as its customer does in the portal."""
        return self.ask("POST", f"payment_methods/{method}/default")

    def become(self, method: str, token: str | None = None, **card: int) -> Answer:
        """Let a card on file behave as another from now on; its bank may tell a new exp_year."""
        return self.ask("POST", f"payment_methods/{method}/become", token=token, card=card)

    def authenticate(self, invoice: str, **more: Any) -> Answer:
        """Complete 3-D Secure on the hosted page, and pay."""
        return self.ask("POST", f"invoices/{invoice}/authenticate", **more)

    def pay(self, invoice: str, **more: Any) -> Answer:
        """Pay on the hosted page, with the card on file, `token=` or `payment_method=`."""
        return self.ask("POST", f"invoices/{invoice}/pay", **more)

    def dispute(self, charge: str, reason: str = "fraudulent") -> Answer:
        """Let the cardholder dispute a charge."""
        return self.ask("POST", f"charges/{charge}/dispute", reason=reason)

    def close_dispute(self, dispute: str, outcome: str) -> Answer:
        """Let the bank decide: won or lost."""
        return self.ask("POST", f"disputes/{dispute}/close", outcome=outcome)

    def refund(self, charge: str, amount: int | None = None) -> Answer:
        """Refund a charge as staff does in Stripe's dashboard."""
        return self.ask("POST", f"charges/{charge}/refund", amount=amount)

    def finish_refund(self, refund: str) -> Answer:
        """Let a refund that is under way reach the card."""
        return self.ask("POST", f"refunds/{refund}/finish")

    def fail_refund(self, refund: str) -> Answer:
        """Let a refund come back from the bank."""
        return self.ask("POST", f"refunds/{refund}/fail")

    def cancel_subscription(self, subscription: str, *, at_period_end: bool = False) -> Answer:
        """Cancel a subscription as staff does in Stripe's dashboard."""
        return self.ask("POST", f"subscriptions/{subscription}/cancel", at_period_end=at_period_end)
