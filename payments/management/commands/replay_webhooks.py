from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    moment,
    progress,
    write_json_of_many,
)
from payments.models import WebhookEvent
from payments.provider import ProviderError
from payments.services.events import apply_event, fetch_event, replay_event

Status = WebhookEvent.Status


class Command(BaseCommand):
    """Applies stored webhook events again."""

    help = (
        "Apply stored webhook events again: each object is read at the provider, and taken over "
        "as it stands now. Safe to repeat. Says what became of each, oldest first; ends with an "
        "error when one was not applied."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare which events are meant: at least one way has to be given."""
        parser.add_argument("--failed", action="store_true", help="those that were given up")
        parser.add_argument(
            "--ignored",
            action="store_true",
            help="those that changed nothing, as after an upgrade that heeds more kinds",
        )
        parser.add_argument(
            "--since",
            type=moment,
            metavar="ISO",
            help="those that came since then; without an offset it is UTC",
        )
        parser.add_argument("--event", metavar="evt_...", help="this one")
        parser.add_argument(
            "--fetch", action="store_true", help="with --event: ask the provider for it first"
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, one event after the other."""
        is_dry, wanted = options["dry_run"], _wanted(options)
        waiting = 0

        def outcomes() -> Iterator[dict[str, str]]:
            nonlocal waiting
            with progress("events", len(wanted)) as advance:
                for event_id in wanted:
                    told = _look(event_id) if is_dry else _replay(event_id)
                    waiting += told["status"] not in {Status.APPLIED, Status.IGNORED}
                    yield told
                    advance(1)

        if options["json"]:
            write_json_of_many(
                self.stdout,
                "events",
                outcomes(),
                lambda: {"dry_run": is_dry, "not_done": waiting},
            )
        else:
            for told in outcomes():
                self.stdout.write("{event}  {type}  {status}  {result}".format(**told))
            done = "would be applied again" if is_dry else f"{waiting} of them not done"
            self.stdout.write(f"{len(wanted)} events, {done}.")
        if waiting and not is_dry:
            raise CommandError("What is not done is tried again by the sweep.")


def _wanted(options: dict[str, Any]) -> list[str]:
    """Return the ids of the events that are meant. Raises CommandError."""
    is_dry = options["dry_run"]
    if options["fetch"] and not options["event"]:
        raise WrongArgumentError("--fetch goes with --event.")
    if not any(options[way] for way in ("failed", "ignored", "since", "event")):
        raise WrongArgumentError("Say which: --failed, --ignored, --since or --event.")
    if options["fetch"] and not is_dry:
        try:
            fetch_event(options["event"], now=datetime.now(UTC))
        except ProviderError as error:
            raise CommandError(f"{options['event']} was not fetched: {error}") from error
    wanted = list(_chosen(options).values_list("event_id", flat=True))
    if options["event"] and not wanted and not (is_dry and options["fetch"]):
        raise WrongArgumentError(
            f"--event: {options['event']} is not stored; --fetch asks the provider."
        )
    return wanted


def _replay(event_id: str) -> dict[str, str]:
    """Apply one and return what became of it."""
    now = datetime.now(UTC)
    if replay_event(event_id, now=now):
        apply_event(event_id, now=now)
    return _look(event_id)


def _look(event_id: str) -> dict[str, str]:
    event = WebhookEvent.objects.defer("body").get(event_id=event_id)
    result = event.result or ("Somebody is applying it." if event.claimed_until else "")
    return {"event": event_id, "type": event.type, "status": event.status, "result": result}


def _chosen(options: dict[str, Any]) -> QuerySet[WebhookEvent]:
    """Return the events that are meant, those that happened first coming first."""
    events = WebhookEvent.objects.order_by("happened_at", "pk")
    if options["event"]:
        events = events.filter(event_id=options["event"])
    if options["since"]:
        events = events.filter(received_at__gte=options["since"])
    statuses = [status for status in (Status.FAILED, Status.IGNORED) if options[status.value]]
    return events.filter(status__in=statuses) if statuses else events
