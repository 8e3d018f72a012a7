from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management import BaseCommand

from billing import services
from billing.credit_notes import CreditNoteRefusedError
from billing.history import UsageNotKeptError
from billing.models import Correction, CreditNote, Invoice
from billing.services.corrections import Proposal
from metering.command_line import WrongArgumentError, add_dry_run, add_json, write_json


class Command(BaseCommand):
    """State a closed period again, and correct its invoice by the difference."""

    help = "Correct a final invoice to what its period comes to now, by the terms of now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the invoice's number, the reason, and whether to show the difference only."""
        parser.add_argument("number", help="as in 2026-000001")
        parser.add_argument("--reason", required=True, help="kept with the correction")
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the difference line by line and how it is settled."""
        invoice = Invoice.objects.filter(number=options["number"]).first()
        if invoice is None:
            raise WrongArgumentError(f"number: there is no invoice {options['number']}.")
        made: Correction | None = None
        try:
            by = services.Author(options["reason"])
            proposal = services.difference_of(invoice.pk)
            if proposal and not options["dry_run"]:
                made = services.rerate(invoice.pk, by=by, now=datetime.now(UTC))
        except (
            services.CorrectionRefusedError,
            CreditNoteRefusedError,
            UsageNotKeptError,
            ValueError,
        ) as refusal:
            raise WrongArgumentError(str(refusal)) from refusal
        if options["json"]:
            answer = _fields(proposal, made)
            write_json(self.stdout, {"invoice": invoice.number, **answer})
        elif proposal is None:
            self.stdout.write(f"Nothing differs: {invoice} is what its period comes to.")
        else:
            self._show(proposal)
        if made and not options["json"]:
            self.stdout.write(_made(made))

    def _show(self, proposal: Proposal) -> None:
        for line in proposal.lines:
            self.stdout.write(f"{line.component}, {line.description}: {line.amount}")
        if proposal.note:
            self.stdout.write(f"In all by a credit note of {proposal.note.total}.")
        else:
            self.stdout.write(
                f"In all {proposal.difference}, without tax, by {proposal.settlement}."
            )


def _made(correction: Correction) -> str:
    if correction.status == Correction.Status.PROPOSED:
        return f"{correction} waits for a second person's approval."
    note = CreditNote.objects.filter(correction=correction).first()
    return f"{correction} is applied{f': credit note {note}' if note else ''}."


def _fields(proposal: Proposal | None, made: Correction | None) -> dict[str, Any]:
    lines = proposal.lines if proposal else ()
    return {
        "differs": proposal is not None,
        "lines": [
            {"component": line.component, "description": line.description, "amount": line.amount}
            for line in lines
        ],
        "difference": proposal.difference if proposal else None,
        "settlement": proposal.settlement if proposal else None,
        "correction": made.pk if made else None,
        "status": made.status if made else None,
    }
