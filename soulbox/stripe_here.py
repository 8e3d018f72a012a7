"""The local Stripe of an installation that has none of its own: where it is, and its secrets."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "local-stripe.json"
STATE_NAME = "local-stripe-state.json"
WEBHOOK_PATH = "/api/v1/webhook/stripe"


@dataclass(frozen=True, slots=True)
class StripeHere:
    """How to reach the local Stripe that `make run` starts. Kept in SOULBOX_HOME."""

    port: int
    api_key: str
    webhook_secret: str

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


def read(home: Path) -> StripeHere | None:
    """Return what `make run` wrote down, if it has."""
    file = home / FILE_NAME
    return StripeHere(**json.loads(file.read_text())) if file.exists() else None


def write(home: Path, port: int) -> StripeHere:
    """Write down where it answers, for every process of the installation; return it.

    Safe to repeat: the secrets are made once.
    """
    kept = read(home)
    here = StripeHere(
        port=port,
        api_key=kept.api_key if kept else f"sk_test_{secrets.token_hex(16)}",
        webhook_secret=kept.webhook_secret if kept else f"whsec_{secrets.token_hex(16)}",
    )
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = home / f"{FILE_NAME}.unfinished"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as text:
        json.dump(asdict(here), text)
    unfinished.replace(home / FILE_NAME)
    return here
