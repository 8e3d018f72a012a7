from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from billing import desk_queries, services
from billing.credit_notes import Creditable, CreditNoteRefusedError, Figures
from billing.credits import CreditKind
from billing.lifecycle import TransitionRefusedError
from billing.models import (
    Account,
    Correction,
    CorrectionLine,
    CreditNote,
    CreditNoteLine,
    Invoice,
    NumberSeries,
    Price,
)
from billing.models.invoices import Series
from billing.money import Money
from billing.outstanding import creditable, creditable_lines, outstanding, with_outstanding
from billing.reports.receivables import receivable_rows
from billing.services import Author
from billing.totals import Tax
from tests.billing.test_late_usage import become_late
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    bill,
    credits_left,
    open_account,
    read_streams_until,
    record_usage,
)

LATER = AFTER_MAY + timedelta(days=1)
VOID = services.Because("Wrong")
PAID = services.Because("Bank transfer")
PAGE = Path(__file__).parents[2] / "docs" / "corrections.md"
db = pytest.mark.django_db


def usd(amount: str | int | Decimal) -> Money:
    return Money(Decimal(amount), "USD")


def figures(net: str, tax: str) -> Figures:
    return Figures(usd(net), usd(tax))


def by(reference: str, user: User | None = None) -> Author:
    return Author("Wrong price", user.pk if user else None, reference)


def invoiced(
    name: str = "Ada", *, rate: str = "0.19", is_inclusive: bool = False, cpu_s: int = 1_000_000
) -> Invoice:
    """Return an account's invoice of 12 for cpu and 2 for egress, before tax if it is not in it."""
    account = open_account(name)
    Account.objects.filter(pk=account.pk).update(
        tax_rate=Decimal(rate), tax_is_inclusive=is_inclusive
    )
    record_usage(account.pk, cpu_s=cpu_s, egress_bytes=100 * 2**30)
    return bill(account)


def user(name: str) -> User:
    return User.objects.create_user(name)


def note_of(correction: Correction) -> CreditNote:
    return CreditNote.objects.get(correction=correction)


def test_the_tax_of_a_note_is_the_totals_at_the_invoices_rate() -> None:
    left = Creditable(figures("100", "19"), Tax(Decimal("0.19")))
    assert left.of_total(usd("11.90")) == figures("10", "1.90")
    assert left.of_lines(usd("10")) == figures("10", "1.90")
    assert left.of_total(usd(119)) == left.of_lines(usd(100)) == left.left
    inclusive = Creditable(figures("100", "19"), Tax(Decimal("0.19"), is_inclusive=True))
    assert inclusive.of_lines(usd("11.90")) == figures("10", "1.90")
    assert (left.in_lines, inclusive.in_lines) == (usd(100), usd(119))


@pytest.mark.parametrize("amount", ["0", "-1", "119.01", "0.001", "1E+30"])
def test_an_amount_that_is_none_or_more_than_is_left_is_refused(amount: str) -> None:
    left = Creditable(figures("100", "19"), Tax(Decimal("0.19")))
    with pytest.raises(CreditNoteRefusedError):
        left.of_total(usd(amount))
    with pytest.raises(CreditNoteRefusedError):
        left.of_lines(usd(amount))


cents = st.integers(1, 20_000)


taxes = st.builds(
    lambda rate, is_inclusive: Tax(Decimal(rate) / 10_000, is_inclusive=is_inclusive),
    st.integers(0, 9999),
    st.booleans(),
)


@given(st.integers(1, 100_000), taxes, st.lists(cents, max_size=8))
def test_notes_add_up_to_the_invoice_and_never_past_it(
    net: int, tax: Tax, asked: list[int]
) -> None:
    total = Money.of_minor_units(net, "USD")
    on = tax.on(total)
    whole = Figures(total - on, on) if tax.is_inclusive else Figures(total, on)
    left = Creditable(whole, tax)
    for number, units in enumerate(asked):
        amount = Money.of_minor_units(units, "USD")
        try:
            note = left.of_total(amount) if number % 2 else left.of_lines(amount)
        except CreditNoteRefusedError:
            continue
        assert note.net.amount >= 0 <= note.tax.amount
        left = Creditable(left.left - note, tax)
        assert left.left.net.amount >= 0 <= left.left.tax.amount
    if left.left.total:
        assert left.of_total(left.left.total) == left.left


def worked_examples() -> list[tuple[Decimal, ...]]:
    """Return the page's table: invoice, paid or not, credited, net, tax, off due, as credit."""
    row = re.compile(
        r"\| ([\d.]+) \| (open|paid) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|"
    )
    return [
        tuple(
            Decimal(cell == "paid") if cell in {"open", "paid"} else Decimal(cell) for cell in one
        )
        for one in row.findall(PAGE.read_text())
    ]


@db
@pytest.mark.parametrize("example", worked_examples(), ids=str)
def test_the_pages_examples_are_what_is_credited(example: tuple[Decimal, ...]) -> None:
    total, is_paid, credited, net, tax, off_due, as_credit = example
    invoice = invoiced()
    assert invoice.total_amount == total
    if is_paid:
        services.mark_paid(invoice.pk, because=PAID, now=LATER)
    note = note_of(services.credit_amount(invoice.pk, credited, by=by("CN"), now=LATER))
    assert (note.net, note.tax, note.off_due, note.as_credit) == (net, tax, off_due, as_credit)


def test_the_page_has_all_its_examples() -> None:
    assert len(worked_examples()) == 3


@db
def test_a_note_lowers_what_is_owed_and_the_invoice_stays_as_it_is() -> None:
    invoice = invoiced()
    before = Invoice.objects.filter(pk=invoice.pk).values().get()
    correction = services.credit_amount(invoice.pk, Decimal("5.95"), by=by("CN"), now=LATER)
    note = note_of(correction)
    assert (correction.status, correction.settlement) == ("applied", "credit_note")
    assert (note.number, note.net, note.tax, note.total) == (
        "CN-2026-000001",
        5,
        Decimal("0.95"),
        Decimal("5.95"),
    )
    assert (note.off_due, note.as_credit, note.grant) == (note.total, 0, None)
    assert outstanding(invoice) == usd("10.71")
    owed: Any = with_outstanding(Invoice.objects.all()).get()
    assert owed.outstanding == Decimal("10.71")
    assert [row.due for row in desk_queries.outstanding()] == [Decimal("10.71")]
    day = LATER.date() + timedelta(days=1)
    [receivable] = receivable_rows(day, payment_terms_days=14, seller_zone=ZoneInfo("UTC"))
    assert receivable.receivable == usd("10.71")
    assert Invoice.objects.filter(pk=invoice.pk).values().get() == before
    # Asked for again it is the same one.
    again = services.credit_amount(invoice.pk, Decimal("5.95"), by=by("CN"), now=LATER)
    assert again == correction
    assert CreditNote.objects.count() == 1
    with pytest.raises(services.CorrectionRefusedError, match="already"):
        services.credit_amount(invoice.pk, Decimal("5.96"), by=by("CN"), now=LATER)


@db
def test_an_invoice_that_is_credited_in_full_is_paid() -> None:
    invoice = invoiced()
    services.credit_amount(invoice.pk, Decimal("6.66"), by=by("first"), now=LATER)
    rest = services.credit_in_full(invoice.pk, by=by("rest"), now=LATER)
    assert services.credit_in_full(invoice.pk, by=by("rest"), now=LATER) == rest
    invoice.refresh_from_db()
    assert invoice.status == Invoice.Status.PAID
    assert invoice.transitions.last().reason == "Credited by CN-2026-000002"  # type: ignore[union-attr]
    assert outstanding(invoice) == usd(0)
    notes = invoice.credit_notes.values_list("net", "tax", "total")
    assert [sum(column) for column in zip(*notes, strict=True)] == [
        14,
        invoice.tax,
        invoice.total_amount,
    ]
    with pytest.raises(CreditNoteRefusedError, match="Nothing of"):
        services.credit_in_full(invoice.pk, by=by("more"), now=LATER)
    assert NumberSeries.objects.get(series=Series.CREDIT_NOTE).last_number == 2


@db
def test_what_was_paid_already_becomes_prepaid_credit() -> None:
    invoice = invoiced()
    gift = services.Gift(CreditKind.PREPAID, Decimal(1), "Bank transfer", "BT-1")
    services.grant_credit(invoice.account_id, gift, now=NOON)
    services.mark_paid(invoice.pk, because=PAID, now=LATER)
    note = note_of(services.credit_amount(invoice.pk, Decimal(4), by=by("CN"), now=LATER))
    assert (note.off_due, note.as_credit) == (0, 4)
    assert credits_left(invoice.account, JUNE) == usd(5)
    assert note.grant is not None
    assert note.grant.kind == CreditKind.PREPAID


@db
def test_prepaid_credit_that_paid_a_part_comes_back_after_what_is_owed() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    gift = services.Gift(CreditKind.PREPAID, Decimal(8), "Bank transfer", "BT-1")
    services.grant_credit(account.pk, gift, now=NOON)
    invoice = bill(account)
    assert (invoice.prepaid_used, invoice.amount_due) == (8, 4)
    note = note_of(services.credit_in_full(invoice.pk, by=by("CN"), now=LATER))
    assert (note.off_due, note.as_credit) == (4, 8)


@db
def test_lines_are_credited_up_to_what_they_ask_for() -> None:
    invoice = invoiced()
    cpu, egress = invoice.lines.order_by("position")
    asked = {cpu.pk: Decimal(5), egress.pk: Decimal(2)}
    correction = services.credit_lines(invoice.pk, asked, by=by("CN"), now=LATER)
    note = note_of(correction)
    assert (note.net, note.tax) == (7, Decimal("1.33"))
    assert list(note.lines.values_list("invoice_line", "amount")) == [(cpu.pk, 5), (egress.pk, 2)]
    assert creditable_lines(invoice) == {cpu.pk: usd(7)}
    for wrong in (
        {cpu.pk: Decimal("7.01")},
        {egress.pk: Decimal("0.01")},
        {cpu.pk: Decimal(-1)},
        {cpu.pk: Decimal("0.001")},
        {cpu.pk: Decimal("NaN")},
        {cpu.pk: Decimal("Infinity")},
        {10**9: Decimal(1)},
        {},
    ):
        with pytest.raises(CreditNoteRefusedError):
            services.credit_lines(invoice.pk, wrong, by=by("wrong"), now=LATER)
    assert services.credit_lines(invoice.pk, asked, by=by("CN"), now=LATER) == correction
    with pytest.raises(services.CorrectionRefusedError):
        services.credit_lines(invoice.pk, {cpu.pk: Decimal(5)}, by=by("CN"), now=LATER)
    assert CreditNote.objects.count() == 1


@db
def test_a_lines_share_of_the_discounts_is_not_credited() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=50_000_000)
    invoice = bill(account)
    [line] = invoice.lines.all()
    assert (line.amount, line.discount) == (600, 30)
    assert creditable_lines(invoice) == {line.pk: usd(570)}


@db
def test_another_accounts_line_is_not_credited() -> None:
    mine, theirs = invoiced(), invoiced("Bob")
    line = theirs.lines.all()[0]
    with pytest.raises(CreditNoteRefusedError):
        services.credit_lines(mine.pk, {line.pk: Decimal(1)}, by=by("CN"), now=LATER)


@db
def test_inclusive_tax_is_part_of_what_lines_credit() -> None:
    invoice = invoiced(is_inclusive=True)
    assert (invoice.total_amount, invoice.tax) == (14, Decimal("2.24"))
    cpu = invoice.lines.order_by("position")[0]
    note = note_of(services.credit_lines(invoice.pk, {cpu.pk: Decimal(7)}, by=by("1"), now=LATER))
    assert (note.net, note.tax, note.total) == (Decimal("5.88"), Decimal("1.12"), 7)
    rest = note_of(services.credit_in_full(invoice.pk, by=by("2"), now=LATER))
    assert (rest.net, rest.tax, rest.total) == (Decimal("5.88"), Decimal("1.12"), 7)


@db
def test_drafts_and_void_invoices_are_not_credited_and_credited_ones_not_voided() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    read_streams_until(AFTER_MAY)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    with pytest.raises(CreditNoteRefusedError, match="draft"):
        services.credit_in_full(draft.pk, by=by("CN"), now=LATER)
    invoice = bill(account)
    services.credit_amount(invoice.pk, Decimal(1), by=by("CN"), now=LATER)
    for undo in (services.void_invoice, services.reissue_invoice):
        with pytest.raises(TransitionRefusedError, match="corrected"):
            undo(invoice.pk, because=VOID, now=LATER)
    with pytest.raises(DatabaseError, match="cannot be voided"), transaction.atomic():
        Invoice.objects.filter(pk=invoice.pk).update(status="void")
    other = invoiced("Bob")
    services.void_invoice(other.pk, because=VOID, now=LATER)
    with pytest.raises(CreditNoteRefusedError, match="void"):
        services.credit_in_full(other.pk, by=by("CN"), now=LATER)


@db
def test_a_reason_and_a_reference_are_wanted() -> None:
    invoice = invoiced()
    with pytest.raises(services.CorrectionRefusedError, match="reference"):
        services.credit_in_full(invoice.pk, by=Author("Wrong price"), now=LATER)
    with pytest.raises(services.CorrectionRefusedError, match="why"):
        Author(" ")


@db
def test_a_large_note_waits_for_a_second_person(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 5
    ada, bob = user("ada"), user("bob")
    invoice = invoiced()
    small = services.credit_amount(invoice.pk, Decimal(5), by=by("small", ada), now=LATER)
    assert (small.status, small.decided_by) == ("applied", None)
    large = services.credit_amount(invoice.pk, Decimal("5.01"), by=by("large", ada), now=LATER)
    assert large.status == "proposed"
    assert not CreditNote.objects.filter(correction=large).exists()
    assert outstanding(invoice) == usd("11.66")
    with pytest.raises(services.CorrectionRefusedError, match="waits for a decision"):
        services.credit_amount(invoice.pk, Decimal(1), by=by("next", bob), now=LATER)
    with pytest.raises(services.CorrectionRefusedError, match="second person"):
        services.approve_correction(large.pk, decided_by_id=ada.pk, now=LATER)
    with pytest.raises(TransitionRefusedError, match="corrected"):
        services.void_invoice(invoice.pk, because=VOID, now=LATER)
    for _ in range(2):
        services.approve_correction(large.pk, decided_by_id=bob.pk, now=LATER)
    note = note_of(large)
    assert (note.author, note.approved_by) == (ada, bob)
    assert outstanding(invoice) == usd("6.65")
    with pytest.raises(services.CorrectionRefusedError, match="applied already"):
        services.reject_correction(large.pk, decided_by_id=bob.pk, now=LATER)


@db
def test_small_notes_of_an_invoice_are_a_large_one_together(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 5
    invoice = invoiced()
    made = [
        services.credit_amount(invoice.pk, Decimal(2), by=by(f"CN {number}"), now=LATER)
        for number in range(3)
    ]
    assert [correction.status for correction in made] == ["applied", "applied", "proposed"]
    services.approve_correction(made[2].pk, decided_by_id=user("bob").pk, now=LATER)
    # What was approved does not count against what follows.
    fourth = services.credit_amount(invoice.pk, Decimal(1), by=by("CN 4"), now=LATER)
    assert fourth.status == "applied"


@db
def test_of_a_remainder_that_became_credit_nothing_is_left_to_credit() -> None:
    may = invoiced()
    become_late(may.account, -900_000 * 10**9)
    record_usage(may.account_id, JUNE.start, cpu_s=10_000)
    june = bill(may.account, JUNE)
    assert (june.usage_fee, june.tax, june.total_amount) == (
        Decimal("0.12"),
        Decimal("-2.03"),
        0,
    )
    assert june.credited == Decimal("12.71")
    assert creditable(june).left == figures("0", "0")
    line = june.lines.get(kind="usage")
    with pytest.raises(CreditNoteRefusedError):
        services.credit_lines(june.pk, {line.pk: Decimal("0.01")}, by=by("CN"), now=LATER)
    # A lower price comes off the next invoice.
    Price.objects.filter(meter="cpu").update(unit_price=Decimal("0.000001"))
    correction = services.rerate(june.pk, by=by(""), now=LATER)
    assert correction is not None
    assert (correction.settlement, correction.net) == ("adjustment", Decimal("-0.11"))


@db
def test_a_rejected_note_leaves_everything_as_it_was(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 5
    ada, bob = user("ada"), user("bob")
    invoice = invoiced()
    large = services.credit_in_full(invoice.pk, by=by("large", ada), now=LATER)
    for _ in range(2):
        services.reject_correction(large.pk, decided_by_id=bob.pk, now=LATER)
    with pytest.raises(services.CorrectionRefusedError, match="rejected"):
        services.approve_correction(large.pk, decided_by_id=bob.pk, now=LATER)
    assert not CreditNote.objects.exists()
    assert creditable(invoice).left.total == usd("16.66")
    services.void_invoice(invoice.pk, because=VOID, now=LATER)
    assert not NumberSeries.objects.filter(series=Series.CREDIT_NOTE).exists()


@db
def test_the_author_cannot_approve_past_the_service(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 5
    ada = user("ada")
    large = services.credit_in_full(invoiced().pk, by=by("large", ada), now=LATER)
    with pytest.raises(IntegrityError, match="second_person"), transaction.atomic():
        Correction.objects.filter(pk=large.pk).update(
            status="applied", decided_by=ada, decided_at=LATER
        )


def forged(invoice: Invoice, correction: Correction, **changed: object) -> CreditNote:
    """Insert a note past the services."""
    total = Decimal(str(changed.pop("total", "1")))
    given = {
        "net": total,
        "tax": Decimal(0),
        "off_due": total,
        "as_credit": Decimal(0),
        "number": f"CN-{CreditNote.objects.count()}",
        "currency": "USD",
        "reason": "x",
        **changed,
    }
    return CreditNote.objects.create(
        invoice=invoice,
        correction=correction,
        total=total,
        issued_on=LATER.date(),
        issued_at=LATER,
        **given,
    )


@db
def test_the_database_keeps_notes_inside_their_invoice(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 0
    invoice, other = invoiced(), invoiced("Bob")
    services.void_invoice(other.pk, because=VOID, now=LATER)
    waiting = services.credit_in_full(invoice.pk, by=by("large"), now=LATER)
    refused: list[Callable[[], object]] = [
        lambda: forged(invoice, waiting, total="14.01"),
        lambda: forged(invoice, waiting, total="14.01", net="11.34", tax="2.67"),
        lambda: forged(invoice, waiting, total="1", net="2", tax="-1"),
        lambda: forged(invoice, waiting, total="1", as_credit="1", off_due="0"),
        lambda: forged(invoice, waiting, currency="EUR"),
        lambda: forged(other, waiting),
        lambda: forged(invoice, waiting, total="0"),
    ]
    for forge in refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            forge()
    # Lines that do not sum to it are found out at the commit.

    def commit_with_other_lines() -> None:
        note = forged(invoice, waiting)
        CreditNoteLine.objects.create(
            credit_note=note,
            position=1,
            description="x",
            amount=Decimal(2),
            period_start=MAY.start,
            period_end=MAY.end,
        )
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    with pytest.raises(IntegrityError, match="do not sum"), transaction.atomic():
        commit_with_other_lines()


@db
@pytest.mark.parametrize("table", [CreditNote, CreditNoteLine, CorrectionLine, Correction])
def test_what_was_corrected_cannot_be_changed_or_emptied(table: type) -> None:
    services.credit_amount(invoiced().pk, Decimal(1), by=by("CN"), now=LATER)
    name = table._meta.db_table  # type: ignore[attr-defined]
    for statement in ("UPDATE {} SET id = id + 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
        with (
            pytest.raises(DatabaseError),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement.format(name))
