"""Two credit notes of 9 against an invoice of 12, at once."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import IntegrityError, connections

from billing import services
from billing.credit_notes import CreditNoteRefusedError
from billing.models import Correction, CreditNote, Invoice, NumberSeries
from billing.models.invoices import Series
from billing.outstanding import creditable
from tests.billing.usage import AFTER_MAY, bill, open_account, record_usage
from tests.races.workers import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

INVOICES = 40
WORKERS = 2
LATER = AFTER_MAY + timedelta(days=1)
ASKED = Decimal(9)


def invoices() -> list[Invoice]:
    made = []
    for number in range(INVOICES):
        account = open_account(f"Ada {number}")
        record_usage(account.pk, cpu_s=1_000_000)
        made.append(bill(account))
    return made


def credited(invoice: Invoice) -> Decimal:
    return sum(invoice.credit_notes.values_list("total", flat=True), start=Decimal(0))


@pytest.mark.timeout(600)
def test_no_more_than_the_invoice_is_credited() -> None:
    made = invoices()

    def work(worker: int) -> None:
        for invoice in made:
            by = services.Author("Race", reference=f"race {worker}")
            with contextlib.suppress(CreditNoteRefusedError):
                services.credit_amount(invoice.pk, ASKED, by=by, now=LATER)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    assert [credited(invoice) for invoice in made] == [ASKED] * INVOICES
    # The one that was refused took no number.
    numbers = sorted(CreditNote.objects.values_list("number", flat=True))
    assert numbers == [f"CN-2026-{number:06d}" for number in range(1, INVOICES + 1)]
    assert NumberSeries.objects.get(series=Series.CREDIT_NOTE).last_number == INVOICES


@pytest.mark.timeout(600)
def test_the_same_request_twice_at_once_is_one_note() -> None:
    made = invoices()

    def work(_worker: int) -> None:
        for invoice in made:
            by = services.Author("Race", reference="race")
            services.credit_amount(invoice.pk, Decimal(1), by=by, now=LATER)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    assert [credited(invoice) for invoice in made] == [1] * INVOICES


def credit_without_lock(invoice: Invoice, worker: int) -> None:
    """What crediting would be without the account's lock: look, then write."""
    if creditable(invoice).left.total.amount < ASKED:
        return
    time.sleep(0.01)  # as long as writing the lines takes
    correction = Correction.objects.create(
        invoice=invoice,
        origin="by_hand",
        status="applied",
        settlement="credit_note",
        currency="USD",
        net=-ASKED,
        reason="Race",
        reference=f"race {worker}",
        proposed_at=LATER,
        decided_at=LATER,
    )
    CreditNote.objects.create(
        invoice=invoice,
        correction=correction,
        number=f"{worker}-{invoice.pk}",
        currency="USD",
        reason="Race",
        net=ASKED,
        tax=0,
        total=ASKED,
        off_due=ASKED,
        as_credit=0,
        issued_on=LATER.date(),
        issued_at=LATER,
    )


def set_trigger(state: str) -> None:
    """Enable or disable the database's own guard, as the owner."""
    parameters = {**connections["owner"].get_connection_params()}
    parameters["dbname"] = connections["default"].settings_dict["NAME"]
    with psycopg.connect(**parameters) as connection:
        connection.execute(f"ALTER TABLE billing_creditnote {state} TRIGGER credit_note_fits")


@pytest.mark.timeout(600)
def test_control_without_lock_and_trigger_more_is_credited() -> None:
    made = invoices()

    def work(worker: int) -> None:
        for invoice in made:
            credit_without_lock(invoice, worker)

    set_trigger("DISABLE")
    try:
        assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    finally:
        set_trigger("ENABLE")
    assert any(credited(invoice) > invoice.total_amount for invoice in made)


@pytest.mark.timeout(600)
def test_the_trigger_alone_keeps_notes_inside_the_invoice() -> None:
    made = invoices()

    def work(worker: int) -> None:
        for invoice in made:
            # Refused by the database, which waits for the other note and sees it.
            with contextlib.suppress(IntegrityError):
                credit_without_lock(invoice, worker)

    assert run_at_once(work, workers=WORKERS) == [0] * WORKERS
    assert [credited(invoice) for invoice in made] == [ASKED] * INVOICES
