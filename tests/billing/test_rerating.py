from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from billing import services
from billing.history import UsageNotKeptError
from billing.models import (
    Account,
    Correction,
    CreditGrant,
    CreditNote,
    Invoice,
    InvoiceAdjustment,
    Price,
)
from billing.services import Author
from metering.models import UsageRecord
from metering.period import Period
from tests.billing.test_late_usage import JULY, adjusted, become_late
from tests.billing.usage import (
    AFTER_MAY,
    JUNE,
    MAY,
    NOON,
    bill,
    credits_left,
    open_account,
    record_usage,
)

pytestmark = pytest.mark.django_db

LATER = AFTER_MAY + timedelta(days=1)
SECOND = 10**9
BECAUSE = Author("Wrong price of cpu")
VOID = services.Because("Wrong buyer")


def set_cpu_price(unit_price: str) -> None:
    Price.objects.filter(meter="cpu", currency="USD").update(unit_price=Decimal(unit_price))


def invoiced(account: Account, *, cpu_s: int = 1_000_000, period: Period = MAY) -> Invoice:
    record_usage(account.pk, NOON + (period.start - MAY.start), cpu_s=cpu_s)
    return bill(account, period)


def rerate(invoice: Invoice) -> Correction | None:
    return services.rerate(invoice.pk, by=BECAUSE, now=LATER)


def amounts(correction: Correction | None) -> dict[str, Decimal]:
    assert correction is not None
    return {line.component: line.amount for line in correction.lines.all()}


def test_a_lower_price_ends_in_one_credit_note_and_a_second_run_does_nothing() -> None:
    may = invoiced(open_account())
    assert rerate(may) is None
    set_cpu_price("0.000009")
    correction = rerate(may)
    assert amounts(correction) == {"usage": -3}
    note = CreditNote.objects.get(correction=correction)
    assert (note.total, note.off_due) == (3, 3)
    assert note.lines.get().invoice_line == may.lines.get()
    assert rerate(may) is None
    # Put right once more, it is the difference to what was credited.
    set_cpu_price("0.000008")
    assert amounts(rerate(may)) == {"usage": -1}
    assert [rerate(may), Correction.objects.count()] == [None, 2]


def test_a_higher_price_ends_in_lines_of_the_next_invoice() -> None:
    account = open_account()
    may = invoiced(account)
    set_cpu_price("0.00002")
    correction = rerate(may)
    assert correction is not None
    assert (correction.settlement, correction.net, correction.tax) == ("adjustment", 8, 0)
    # While it waits it counts as invoiced.
    assert rerate(may) is None
    set_cpu_price("0.000012")
    set_cpu_price("0.00002")
    june = bill(account, JUNE)
    assert adjusted(june) == {("usage", "cpu"): 8}
    assert june.lines.get().period == MAY
    assert InvoiceAdjustment.objects.get().correction_line == correction.lines.get()
    assert rerate(may) is None
    # It is on one invoice: a void one lets it wait for the next.
    services.void_invoice(june.pk, because=VOID, now=JULY.start)
    assert rerate(may) is None
    assert adjusted(bill(account, JULY)) == {("usage", "cpu"): 8}


def test_late_usage_that_was_billed_is_part_of_what_was_invoiced() -> None:
    account = open_account()
    may = invoiced(account)
    become_late(account, 500_000 * SECOND)
    # Not billed yet: it is the next invoice's matter.
    assert rerate(may) is None
    june = bill(account, JUNE)
    assert june.adjustments == 6
    assert rerate(may) is None
    set_cpu_price("0.000002")
    # 3 instead of 18, of which the note can take 12: so it comes off the next invoice.
    correction = rerate(may)
    assert correction is not None
    assert (correction.net, correction.settlement) == (-15, "adjustment")
    assert rerate(may) is None
    july = bill(account, JULY)
    assert (july.adjustments, july.total_amount, july.credited) == (-15, 0, 15)


def test_what_a_person_credited_is_part_of_what_was_invoiced() -> None:
    may = invoiced(open_account())
    line = may.lines.get()
    by = Author("Wrong price", reference="CN")
    services.credit_lines(may.pk, {line.pk: Decimal(3)}, by=by, now=LATER)
    set_cpu_price("0.000009")
    assert rerate(may) is None
    set_cpu_price("0.000008")
    assert amounts(rerate(may)) == {"usage": -1}


def test_goodwill_is_not_asked_for_again_without_a_second_person() -> None:
    account = open_account()
    invoice = invoiced(account)
    goodwill = Author("Goodwill", reference="case-1")
    services.credit_amount(invoice.pk, Decimal(2), by=goodwill, now=LATER)
    correction = rerate(invoice)
    assert correction is not None
    assert (correction.net, correction.status) == (2, "proposed")
    assert not InvoiceAdjustment.objects.exists()


def test_credit_follows_what_the_period_costs() -> None:
    account = open_account(plan_code="professional")
    may = invoiced(account, cpu_s=8_000_000)
    assert (may.usage_fee, may.credits_used) == (96, 96)
    set_cpu_price("0.000009")
    # 24 less, all of it paid by credit that is over: no money moves, and none comes back later.
    less = rerate(may)
    assert less is not None
    assert amounts(less) == {"usage": -24, "credit": 24}
    assert less.settlement == "none"
    monthly = CreditGrant.objects.get(period_start=MAY.start)
    assert sum(monthly.entries.values_list("amount", flat=True)) == 0
    assert not CreditNote.objects.exists()
    assert rerate(may) is None
    set_cpu_price("0.000015")
    # 120: 100 are paid by the credit of May, 28 of which had expired, 20 are to be paid.
    more = rerate(may)
    assert amounts(more) == {"usage": 48, "credit": -28}
    assert rerate(may) is None
    june = bill(account, JUNE)
    assert june.adjustments == 20
    assert sum(monthly.entries.values_list("amount", flat=True)) == 0


def test_discounts_of_the_period_are_stated_again() -> None:
    may = invoiced(open_account(), cpu_s=50_000_000)
    assert (may.usage_fee, may.discounts) == (600, 30)
    set_cpu_price("0.000008")
    # 400 reach no discount.
    assert amounts(rerate(may)) == {"usage": -200, "discount": 30}
    assert CreditNote.objects.get().net == 170
    assert rerate(may) is None


def test_a_large_difference_waits_and_is_looked_at_again(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 2
    ada, bob = (User.objects.create_user(name) for name in ("ada", "bob"))
    may = invoiced(open_account())
    set_cpu_price("0.000009")
    waiting = services.rerate(may.pk, by=Author("Wrong price", ada.pk), now=LATER)
    assert waiting is not None
    assert waiting.status == Correction.Status.PROPOSED
    with pytest.raises(services.CorrectionRefusedError, match="waits for a decision"):
        rerate(may)
    with pytest.raises(services.CorrectionRefusedError, match="second person"):
        services.approve_correction(waiting.pk, decided_by_id=ada.pk, now=LATER)
    set_cpu_price("0.000008")
    with pytest.raises(services.CorrectionRefusedError, match="something else by now"):
        services.approve_correction(waiting.pk, decided_by_id=bob.pk, now=LATER)
    set_cpu_price("0.000009")
    for _ in range(2):
        services.approve_correction(waiting.pk, decided_by_id=bob.pk, now=LATER)
    assert CreditNote.objects.get().total == 3
    assert rerate(may) is None


def test_what_cannot_be_rated_again_is_refused() -> None:
    account = open_account()
    may = invoiced(account)
    UsageRecord.objects.all().delete()
    with pytest.raises(UsageNotKeptError, match="not kept"):
        rerate(may)
    services.void_invoice(may.pk, because=VOID, now=LATER)
    with pytest.raises(services.CorrectionRefusedError, match="void"):
        rerate(may)
    assert not Correction.objects.exists()
    assert credits_left(account, JUNE).amount == 0


def test_the_command_shows_the_difference_and_then_makes_it() -> None:
    may = invoiced(open_account())
    out = StringIO()
    call_command("rerate", may.number, reason="Wrong price", stdout=out)
    assert out.getvalue() == f"Nothing differs: {may.number} is what its period comes to.\n"
    set_cpu_price("0.000009")
    out = StringIO()
    call_command("rerate", may.number, "--dry-run", reason="Wrong price", stdout=out)
    assert "usage, CPU time: -3.00 USD" in out.getvalue()
    assert "by a credit note of 3.00 USD" in out.getvalue()
    assert not Correction.objects.exists()
    out = StringIO()
    call_command("rerate", may.number, reason="Wrong price", stdout=out)
    assert "CN-2026-000001" in out.getvalue()
    with pytest.raises(CommandError, match="no invoice"):
        call_command("rerate", "2026-999999", reason="Wrong price")
    with pytest.raises(CommandError, match="Say why"):
        call_command("rerate", may.number, reason=" ")
