from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import services
from billing.acting import acting
from billing.lifecycle import InvoiceStatus, TransitionRefusedError
from billing.models import Invoice
from billing.queries import accounts_with
from metering.command_line import (
    WrongArgumentError,
    add_dry_run,
    add_json,
    month,
    progress,
    rehearsal,
    row_id,
    write_json_of_many,
)
from payments.services.providing import is_set_up

MAY_RETRY = "billing.change_invoice"
LONGEST_REASON = 200


class Command(BaseCommand):
    """Let payments that failed be tried once more, as *Retry payment* in the admin does."""

    help = (
        "Have payments that failed tried once more by the next sweep, with the account's default "
        "card: of one invoice, or of all of an account or of periods. Safe to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which invoices, why, and at whose word."""
        parser.add_argument("invoice", nargs="?", help="number of one invoice")
        parser.add_argument("--account", type=row_id, help="all that failed of this account")
        parser.add_argument(
            "--period", type=month, help="YYYY-MM: all that failed of periods that began in it"
        )
        parser.add_argument("--reason", required=True, help="kept with the invoice's history")
        parser.add_argument(
            "--by", metavar="USERNAME", help="the member of staff it is done for, kept beside it"
        )
        add_dry_run(parser)
        add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it, and print what became of each. Raises CommandError where one was refused."""
        keys = _chosen(options)
        because = _because(options)
        is_dry, refused = options["dry_run"], 0

        def outcomes() -> Iterator[dict[str, Any]]:
            nonlocal refused
            with progress("invoices", len(keys)) as advance:
                for key in keys:
                    told = _retry(key, because, is_dry=is_dry)
                    refused += bool(told["refused"])
                    yield told
                    advance(1)

        if options["json"]:
            write_json_of_many(
                self.stdout,
                "invoices",
                outcomes(),
                lambda: {"dry_run": is_dry, "refused": refused, "is_set_up": is_set_up()},
            )
        else:
            for told in outcomes():
                self.stdout.write("{number}: {becomes}".format(**told))
            self.stdout.write(_summary(len(keys), refused, is_dry=is_dry))
        if refused:
            raise CommandError(f"{refused} were refused; the lines above say why.")


def _chosen(options: dict[str, Any]) -> list[int]:
    """Return the keys of the invoices that are meant, oldest first. Raises WrongArgumentError."""
    number, account, period = options["invoice"], options["account"], options["period"]
    if bool(number) == bool(account or period):
        raise WrongArgumentError("Say which: an invoice's number, or --account, --period or both.")
    if number:
        invoice = Invoice.objects.filter(number=number).first()
        if invoice is None:
            raise WrongArgumentError(f"invoice: there is no invoice {number}.")
        if invoice.status not in {InvoiceStatus.PAYMENT_FAILED, InvoiceStatus.PENDING_RETRY}:
            raise WrongArgumentError(
                f"invoice: {number} is {invoice.get_status_display().lower()}; only a payment "
                "that failed is tried again."
            )
        return [invoice.pk]
    if account and not accounts_with([account]):
        raise WrongArgumentError(f"--account: there is no account {account}.")
    scope = services.Scope((account,) if account else (), period or "")
    return list(
        scope.invoices(InvoiceStatus.PAYMENT_FAILED).order_by("pk").values_list("pk", flat=True)
    )


def _because(options: dict[str, Any]) -> services.Because:
    name, user = options["by"], None
    if name:
        user = User.objects.filter(username=name).first()
        if user is None or not (user.is_active and user.is_staff and user.has_perm(MAY_RETRY)):
            raise WrongArgumentError(
                f"--by: {name} is nobody of staff who may retry a payment in the admin."
            )
    if len(options["reason"]) > LONGEST_REASON:
        raise WrongArgumentError(f"--reason: say it in {LONGEST_REASON} characters.")
    try:
        return services.Because(options["reason"], user.pk if user else None)
    except TransitionRefusedError:
        raise WrongArgumentError("--reason: say why in a few words.") from None


def _retry(invoice_id: int, because: services.Because, *, is_dry: bool) -> dict[str, Any]:
    try:
        with rehearsal(is_dry=is_dry), acting(user_id=because.user_id):
            invoice = services.retry_payment(invoice_id, because=because, now=datetime.now(UTC))
    except TransitionRefusedError as refusal:
        number = Invoice.objects.values_list("number", flat=True).get(pk=invoice_id)
        return {"number": number, "becomes": str(refusal), "refused": True}
    return {"number": invoice.number, "becomes": invoice.get_status_display(), "refused": False}


def _summary(count: int, refused: int, *, is_dry: bool) -> str:
    if not count:
        return "No payment of these failed."
    if is_dry:
        return f"{count - refused} would be tried again."
    then = "by the next sweep" if is_set_up() else "once STRIPE_API_KEY is set"
    return f"{count - refused} are tried again {then}."
