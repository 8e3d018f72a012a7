from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connections

from metering.services import HostRefusedError
from soulbox import demo_data, environment, run
from soulbox.demo_data import DemoLogins
from soulbox.run import MeteredHost, NoFreePortError, Ports
from soulbox.services import ServicesError, refuse_unsafe_settings


class Command(BaseCommand):
    """Migrate, seed, and run web, workers, beat and Flower until Ctrl-C."""

    help = "Run everything on this machine, with a demo account."

    def handle(self, *_arguments: Any, **_options: Any) -> None:
        """Set up, say where everything is, and run it."""
        try:
            if silent := refuse_unsafe_settings():
                raise CommandError("\n".join(silent))
            ports = run.choose_ports()
        except (ServicesError, NoFreePortError) as error:
            raise CommandError(str(error)) from None
        call_command("migrate", verbosity=0, interactive=False)
        now = datetime.now(UTC)
        logins = demo_data.seed(now)
        host = run.find_host(demo_data.ACCOUNT_ID)
        try:
            run.meter_host(host, now=now)
        except HostRefusedError as error:
            raise CommandError(str(error)) from None
        # The processes are forks; none may share this one's connection.
        connections.close_all()
        self.stdout.write(_welcome(ports, logins, host))
        self.stdout.flush()
        sys.exit(run.run_processes(run.child_environment(ports, logins)))


def _welcome(ports: Ports, logins: DemoLogins, host: MeteredHost) -> str:
    web = f"http://{run.ADDRESS}:{ports.web}"
    flower = f"http://{run.ADDRESS}:{ports.flower}"
    admin = f"{logins.admin} / {logins.admin_password}"
    lines = [
        "",
        f"  Portal   {web}/            {logins.owner} / {logins.owner_password}",
        f"  Admin    {web}/admin/      {admin}",
        f"  API      {web}/api/docs/   with the key below",
        f"  Flower   {flower}/            {admin}",
        *_stripe(ports),
        "  Staff by role, in the admin:",
        *(f"    {name:16} {password}" for name, password in logins.staff.items()),
        *_moved("WEB_PORT", ports.web),
        *_moved("FLOWER_PORT", ports.flower),
        *(_moved("STRIPE_PORT", ports.stripe) if ports.stripe else []),
        "",
        "  What the demo account used so far, and what it costs:",
        f"    curl -H 'Authorization: Bearer {logins.api_key}' {web}/api/v1/usage/current",
        "",
        "  The portal is what customers see: add a card there, and choose a plan.",
        "",
    ]
    if host.why_simulated:
        lines += [
            f"  {host.why_simulated}",
            "  So the simulator provides a small fleet of four sandboxes.",
            "  For real containers start Docker, or set DOCKER_HOST, and run this again.",
        ]
    else:
        labels = f"--label soulbox.sandbox_id=sbx-1 --label soulbox.account_id={logins.account_id}"
        lines += [
            f"  Containers of {host.endpoint} are metered. Try one:",
            f"    docker run -d {labels} --cpus 0.5 busybox sh -c 'while :; do :; done'",
        ]
    return "\n".join([*lines, "", "  Ctrl-C stops everything.", ""])


def _stripe(ports: Ports) -> list[str]:
    if ports.stripe is None:
        return []
    return [f"  Stripe   a local one, at http://{run.ADDRESS}:{ports.stripe}, with test cards only"]


def _moved(name: str, port: int) -> list[str]:
    wanted = environment.integer(name)
    return [f"  {name}={wanted} is taken, so {port} is used."] if port != wanted else []
