"""Runs months one after the other, each in an empty installation."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

import redis
from django.conf import settings
from django.core.management import call_command

from soulbox.services import start_services
from tests.conftest import wipe_committed_rows
from tests.faults.month import control
from tests.faults.month.judge import invoiced_twice, judge, late_share
from tests.faults.month.payday import collect_all
from tests.faults.month.report import Outcome, write
from tests.faults.month.script import draw_month
from tests.faults.month.world import NOTHING_WRONG, Chances, World
from tests.faults.payment_month import LONG_S, reads_soon_again
from tests.local_stripe import API_KEY, SECRET, LocalStripe


def run(given: Namespace) -> int:
    """Run the seeds that were asked for, up to the first that goes wrong; return 1 then."""
    start_services()
    call_command("migrate", verbosity=0)
    if given.control:
        control.take_locks_away()
    outcomes: list[Outcome] = []
    with _provider() as stripe:
        for seed in range(given.first, given.first + given.seeds):
            outcomes.append(_run_seed(seed, stripe, given))
            sys.stdout.write("\n".join(outcomes[-1].lines()) + "\n")
            sys.stdout.flush()
            # Each time: a long run that is ended early has shown something too.
            if given.report:
                write(outcomes, given.report)
            if outcomes[-1].wrong:
                break
    return 1 if outcomes[-1].wrong else 0


@contextmanager
def _provider() -> Iterator[LocalStripe]:
    """Let the product collect through a local provider, and nobody be in its way."""
    with LocalStripe() as stripe, reads_soon_again():
        settings.STRIPE_API_KEY = API_KEY
        settings.STRIPE_API_BASE = stripe.url
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_TIMEOUT_S = LONG_S
        # Django's client is who posts the webhooks.
        settings.ALLOWED_HOSTS = ["testserver"]
        # No person looks at a refund or a high bill.
        settings.REFUND_APPROVAL_THRESHOLD = settings.BILLING_SAFETY_FLOOR = 10**6
        yield stripe


def _run_seed(seed: int, stripe: LocalStripe, given: Namespace) -> Outcome:
    """Act one month out in an empty installation, and judge it."""
    _empty()
    stripe.reset(seed=seed)
    began = time.monotonic()
    outcome = Outcome(seed, given.accounts)
    month = draw_month(seed, accounts=given.accounts)
    chances = NOTHING_WRONG if given.without_faults else Chances()
    if given.control:
        chances = replace(NOTHING_WRONG, twice=1.0)
    world = World(month, chances, Random(seed))  # noqa: S311 - repeatable, and no secret
    try:
        world.open()
        world.meter()
        if given.control:
            outcome.wrong = invoiced_twice(month)
        else:
            collect_all(world, stripe)
            verdict = judge(month, stripe, now=world.now)
            outcome.expected_cents = verdict.expected_cents
            outcome.found_cents = verdict.found_cents
            outcome.wrong = verdict.wrong
    except AssertionError as error:
        outcome.wrong.append(str(error))
    outcome.faults, outcome.recoveries_s = world.faults, world.recoveries_s
    outcome.late_customers = late_share(month)
    outcome.took_s = time.monotonic() - began
    return outcome


def _empty() -> None:
    wipe_committed_rows()
    for url in (settings.REDIS_URL, settings.STREAM_REDIS_URL, settings.CACHE_REDIS_URL):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
