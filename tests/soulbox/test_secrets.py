"""No file that is kept holds a secret of somebody's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soulbox.processes import PROJECT

# Each as its giver makes them; the keys of tests and documents are shorter, or not made at random.
SECRETS = re.compile(
    rb"""
    -----BEGIN\ (RSA\ |EC\ |OPENSSH\ )?PRIVATE\ KEY-----\r?\n[A-Za-z0-9+/=]{40}
    | \b(AKIA|ASIA)[0-9A-Z]{16}\b
    | \bgh[pousr]_[A-Za-z0-9]{36}\b
    | \bglpat-[A-Za-z0-9_-]{20}\b
    | \bxox[abpr]-[0-9]{8,}-[A-Za-z0-9-]{10,}
    | \b[rs]k_live_[A-Za-z0-9]{24,}
    | \bwhsec_[A-Za-z0-9+/]{32,}
    | \bsbx_live_[A-Za-z0-9_-]{40,}
    | \bpypi-[A-Za-z0-9_-]{50,}
    """,
    re.VERBOSE,
)
# The Standard Webhooks specification's own example, and the key of a server that tests run.
KNOWN = {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "tests/billing/webhooks/certificate.pem"}
MADE = {"__pycache__", "build", "node_modules", "staticfiles", "wheels"}
LETTERS = "aB3dE6gH1jK4mN7pQ0sT2vW5yZ8bC9fG"
SAMPLES = (
    f"-----BEGIN PRIVATE KEY-----\n{LETTERS}{LETTERS}",
    f"AKIA{LETTERS[:16].upper()}",
    f"ghp_{LETTERS}{LETTERS[:4]}",
    f"sk_live_{LETTERS}",
    f"rk_live_{LETTERS}",
    f"whsec_{LETTERS}",
    f"sbx_live_{LETTERS}{LETTERS}",
)


def files() -> Iterator[Path]:
    """Yield the project's own files: none of a tool's or a service's folders, but for CI's."""
    for folder, inside, names in os.walk(PROJECT):
        inside[:] = [
            name for name in inside if name == ".ci" or not (name[0] == "." or name in MADE)
        ]
        yield from (Path(folder, name) for name in names)


def test_no_file_holds_a_secret() -> None:
    kept = list(files())
    assert len(kept) > 500
    found = {
        (str(path.relative_to(PROJECT)), match.group().decode())
        for path in kept
        for match in SECRETS.finditer(path.read_bytes())
    }
    assert {one for one in found if not set(one) & KNOWN} == set()


@pytest.mark.parametrize("secret", SAMPLES)
def test_a_secret_would_be_found(secret: str) -> None:
    assert SECRETS.search(f'KEY = "{secret}"'.encode())
