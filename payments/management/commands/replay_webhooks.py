from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

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
            type=_moment,
            metavar="ISO",
            help="those that came since then; without an offset it is UTC",
        )
        parser.add_argument("--event", metavar="evt_...", help="this one")
        parser.add_argument(
            "--fetch", action="store_true", help="with --event: ask the provider for it first"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, one event after the other."""
        if options["fetch"] and not options["event"]:
            raise CommandError("--fetch goes with --event.")
        if not any(options[way] for way in ("failed", "ignored", "since", "event")):
            raise CommandError("Say which: --failed, --ignored, --since or --event.")
        if options["fetch"]:
            try:
                fetch_event(options["event"], now=datetime.now(UTC))
            except ProviderError as error:
                raise CommandError(f"{options['event']} was not fetched: {error}") from error
        wanted = list(_chosen(options).values_list("event_id", flat=True))
        if options["event"] and not wanted:
            raise CommandError(f"{options['event']} is not stored; --fetch asks the provider.")
        waiting = sum(not self._replay(event_id) for event_id in wanted)
        self.stdout.write(f"{len(wanted)} events, {waiting} of them not done.")
        if waiting:
            raise CommandError("What is not done is tried again by the sweep.")

    def _replay(self, event_id: str) -> bool:
        """Apply one and say what became of it; return whether that is done with."""
        now = datetime.now(UTC)
        if replay_event(event_id, now=now):
            apply_event(event_id, now=now)
        event = WebhookEvent.objects.defer("body").get(event_id=event_id)
        is_over = event.status in {Status.APPLIED, Status.IGNORED}
        said = event.result or ("Somebody is applying it." if event.claimed_until else "")
        self.stdout.write(f"{event_id}  {event.type}  {event.status}  {said}")
        return is_over


def _chosen(options: dict[str, Any]) -> QuerySet[WebhookEvent]:
    """Return the events that are meant, those that happened first coming first."""
    events = WebhookEvent.objects.order_by("happened_at", "pk")
    if options["event"]:
        events = events.filter(event_id=options["event"])
    if options["since"]:
        events = events.filter(received_at__gte=options["since"])
    statuses = [status for status in (Status.FAILED, Status.IGNORED) if options[status.value]]
    return events.filter(status__in=statuses) if statuses else events


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
