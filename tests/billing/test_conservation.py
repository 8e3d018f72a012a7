from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client

from billing import services, tasks
from billing.charges import ChargeModel, PartKind
from billing.conservation import (
    InvoiceRows,
    NotConservedError,
    refuse_unconserved,
    state_conservation,
)
from billing.conservation_queries import (
    conservation_of,
    hash_of_evidence,
    rows_of,
    unexplained_lines,
)
from billing.models import DiscountRule, Invoice, InvoiceMismatch, Price
from metering.meters import GB, Meter
from metering.models import CounterReset, LifeReading
from tests.billing.final_invoices import Used, draft_of, issue, line, usage_line
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.usage import (
    AFTER_MAY,
    MAY,
    NOON,
    bill,
    open_account,
    record_first_invoice,
    record_usage,
)

CPU_S = 10**9


def part(kind: PartKind, quantity: str, price: str, size: int = 1) -> Any:
    return SimpleNamespace(
        kind=kind,
        tier=None,
        quantity=Decimal(quantity),
        unit_size=Decimal(size),
        unit_price=Decimal(price),
    )


def rows(**changed: Any) -> InvoiceRows:
    """Two meters and a fee: 10 + 3.60 + 2.00 - 0.56 - 1 = 14.04, tax 10 % 1.40, prepaid 5."""
    figures = {
        "number": "2026-000001",
        "currency": "USD",
        "tax_rate": Decimal("0.1"),
        "tax_is_inclusive": False,
        "subscription_fee": Decimal(10),
        "usage_fee": Decimal("5.60"),
        "discounts": Decimal("0.56"),
        "credits_used": Decimal(1),
        "adjustments": Decimal(0),
        "tax": Decimal("1.40"),
        "credited": Decimal(0),
        "top_up": Decimal(0),
        "total_amount": Decimal("15.44"),
        "prepaid_used": Decimal(5),
        "amount_due": Decimal("10.44"),
    }
    fee = line("fee", "10", unit_price=Decimal(20), quantity=15, unit_size=30, position=1)
    cpu = usage_line(
        Meter.CPU,
        3600 * CPU_S,
        "3.60",
        unit_price=Decimal("0.001"),
        position=2,
        discount=Decimal("0.36"),
    )
    egress = usage_line(Meter.NETWORK_EGRESS, 3 * GB, "2.00", position=3, discount=Decimal("0.20"))
    for row in (fee, cpu, egress):
        row.quantity, row.unit_size = Decimal(row.quantity), Decimal(row.unit_size)
    whole = {
        "lines": [fee, cpu, egress],
        "parts": {
            3: [part(PartKind.FREE, str(GB), "0", GB), part(PartKind.UNITS, str(2 * GB), "1", GB)]
        },
        "discounts": [SimpleNamespace(base="usage_fee", amount=Decimal("0.56"))],
        "evidence": {
            2: [
                SimpleNamespace(quantity=3000 * CPU_S, opening=CPU_S, closing=3001 * CPU_S),
                # It fell by 100 s in between.
                SimpleNamespace(quantity=600 * CPU_S, opening=0, closing=500 * CPU_S),
            ],
            3: [SimpleNamespace(quantity=3 * GB, opening=0, closing=3 * GB)],
        },
        "credits_used": Decimal(1),
        "prepaid_used": Decimal(5),
    }
    names = changed.keys() & (figures.keys() - {"discounts", "credits_used", "prepaid_used"})
    for name in names:
        figures[name] = changed.pop(name)
    return replace(InvoiceRows(figures=SimpleNamespace(**figures), **whole), **changed)  # type: ignore[arg-type]


def test_what_adds_up_holds() -> None:
    statement = state_conservation(rows())

    assert statement.holds
    refuse_unconserved(rows())
    cpu, egress = statement.meters
    assert (cpu.counters, cpu.steps, cpu.measured, cpu.rated) == (
        3500 * CPU_S,
        100 * CPU_S,
        3600 * CPU_S,
        3600 * CPU_S,
    )
    assert (egress.counters, egress.steps, egress.measured, egress.parts) == (
        3 * GB,
        0,
        3 * GB,
        3 * GB,
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"subscription_fee": Decimal(11)}, "subscription_fee: is 11, should be 10"),
        ({"usage_fee": Decimal("5.61")}, "usage_fee: is 5.61, should be 5.60"),
        ({"tax": Decimal("1.41")}, "tax: is 1.41, should be 1.40"),
        ({"total_amount": Decimal("15.45")}, "total_amount: is 15.45, should be 15.44"),
        ({"amount_due": Decimal(10)}, "amount_due: is 10, should be 10.44"),
        ({"adjustments": Decimal("0.01")}, "adjustments: is 0.01, should be 0"),
        ({"credits_used": Decimal("0.99")}, "credits_used: is 1, should be 0.99"),
        ({"prepaid_used": Decimal(4)}, "prepaid_used: is 5, should be 4"),
        ({"discounts": []}, "discounts: is 0.56, should be 0"),
        ({"unexplained": frozenset({2})}, "cpu: measured 3600000000000, rated 3600000000000"),
        ({"is_sealed": False}, "evidence: it is not what its hash was made of"),
        ({"evidence": {}}, "cpu: measured 0, rated 3600000000000"),
    ],
)
def test_each_sum_that_does_not_hold_is_named(changed: dict[str, Any], named: str) -> None:
    statement = state_conservation(rows(**changed))

    assert not statement.holds
    assert any(text.startswith(named) for text in statement.mismatches), statement.mismatches
    with pytest.raises(NotConservedError):
        refuse_unconserved(rows(**changed))


def test_a_line_that_is_not_its_exact_cost_rounded_is_named() -> None:
    spoilt = rows()
    spoilt.lines[1].amount = Decimal("3.61")  # type: ignore[misc]
    assert "line 2: is 3.61, should be 3.60" in state_conservation(spoilt).mismatches


def test_parts_that_lose_a_base_unit_are_named() -> None:
    lost = {
        3: [part(PartKind.FREE, str(GB - 1), "0", GB), part(PartKind.UNITS, str(2 * GB), "1", GB)]
    }
    [mismatch] = state_conservation(rows(parts=lost)).mismatches
    assert mismatch.startswith(f"network_egress: measured {3 * GB}, rated {3 * GB}, in parts ")


def test_without_evidence_the_rest_is_looked_at() -> None:
    statement = state_conservation(rows(evidence=None))
    assert statement.holds
    assert not statement.has_evidence
    assert not state_conservation(rows(evidence=None, tax=Decimal(0))).holds


def test_tax_that_is_inside_is_not_added() -> None:
    # 14.04 with 10 % inside: 1.28.
    inside = {
        "tax_is_inclusive": True,
        "tax": Decimal("1.28"),
        "total_amount": Decimal("14.04"),
        "amount_due": Decimal("9.04"),
    }
    assert state_conservation(rows(**inside)).holds
    assert not state_conservation(rows(**{**inside, "tax": Decimal("1.40")})).holds


def test_a_minimum_and_a_maximum_count_over_all_lines_of_a_meter() -> None:
    def lines(*amounts: str) -> list[Any]:
        made = [
            usage_line(
                Meter.CPU,
                100,
                amount,
                unit_size=1,
                charge=ChargeModel.PERCENTAGE,
                position=at,
            )
            for at, amount in enumerate(amounts, start=1)
        ]
        for row in made:
            row.quantity, row.unit_size = Decimal(row.quantity), Decimal(row.unit_size)
        return made

    # 10 % of 100 twice is 20, at most 15: the second brings 5. A minimum of 18 adds 3 to that.
    parts = {
        1: [part(PartKind.PERCENT, "100", "0.1")],
        2: [
            part(PartKind.PERCENT, "100", "0.1"),
            part(PartKind.MAXIMUM, "1", "15"),
            part(PartKind.MINIMUM, "1", "18"),
        ],
    }
    changed = {
        "lines": lines("10", "8"),
        "parts": parts,
        "evidence": None,
        "discounts": [],
        "credits_used": Decimal(0),
        "prepaid_used": Decimal(0),
    }
    found = state_conservation(rows(**changed)).equations
    assert [e.should_be for e in found if e.name.startswith("line ")] == [10, 8]


@pytest.mark.django_db
class TestOfInvoices:
    def test_an_invoice_of_the_billing_run_holds(self) -> None:
        account = open_account(plan_code="team")
        record_first_invoice(account.pk)
        DiscountRule.objects.create(name="Volume", kind="volume", percent=Decimal(5))
        invoice = bill(account)

        statement = conservation_of([invoice.pk], now=AFTER_MAY)[invoice.pk]
        assert statement.mismatches == ()
        assert {m.meter: m.rated for m in statement.meters} == {
            "cpu": 3600 * CPU_S,
            "memory": 7200 * GB * 1000,
            "network_egress": 10 * GB,
        }

    def test_a_draft_with_tiers_free_units_and_a_minimum_holds(self) -> None:
        account = open_account()
        book = make_book("tiered", account=account)
        add_tiered_price(
            book, Meter.CPU, [("1000", "0.01", "1"), (None, "0.001", "0")], "graduated"
        )
        Price.objects.create(
            version=book.versions.get(),
            meter=Meter.MEMORY,
            charge="per_unit",
            unit_price=Decimal("0.01"),
            free_units=Decimal(30),
            minimum=Decimal(5),
        )
        services.subscribe(
            account.pk,
            plan_code="enterprise",
            now=MAY.start,
            agreed=services.AgreedTerms(fee=Decimal(0), price_book=book),
        )
        record_usage(account.pk, cpu_s=3600, memory_gb_s=100)
        draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)

        statement = conservation_of([draft.pk], now=AFTER_MAY)[draft.pk]
        assert statement.mismatches == ()
        amounts = {e.name: e.should_be for e in statement.equations}
        # 1 + 1000 × 0.01 + 2600 × 0.001; 70 × 0.01 is below 5.
        assert (amounts["line 1"], amounts["line 2"]) == (Decimal("13.60"), Decimal(5))

    def test_many_are_looked_at_with_a_fixed_number_of_queries(
        self, django_assert_max_num_queries: Any
    ) -> None:
        accounts = [open_account(f"Account {at}") for at in range(5)]
        invoices = []
        for account in accounts:
            record_first_invoice(account.pk)
            invoices.append(bill(account).pk)
        with django_assert_max_num_queries(7):
            found = conservation_of(invoices, now=AFTER_MAY)
        assert [found[key].holds for key in invoices] == [True] * 5


@pytest.mark.django_db
def test_a_counter_explains_its_quantity_or_does_not() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3600)
    life = LifeReading.objects.get().life
    used = SimpleNamespace(
        life_id=life.pk,
        first_window=NOON,
        last_window=NOON,
        quantity=Decimal(700),
        opening=Decimal(100),
        closing=Decimal(500),
    )
    # 300 more than the ends say.
    assert unexplained_lines([("a", Meter.CPU, used)], now=AFTER_MAY) == {"a"}
    CounterReset.objects.create(
        life=life,
        series=life.pk,
        counter="cpu_ns",
        at=NOON + timedelta(minutes=5),
        before=320,
        after=20,
    )
    assert unexplained_lines([("a", Meter.CPU, used)], now=AFTER_MAY) == set()
    used.quantity = Decimal(701)
    assert unexplained_lines([("a", Meter.CPU, used)], now=AFTER_MAY) == {"a"}
    # What the counter showed at the first sample is not billed.
    used.quantity, used.opening = Decimal(350), Decimal(0)
    LifeReading.objects.update(base_cpu_ns=150)
    assert unexplained_lines([("a", Meter.CPU, used)], now=AFTER_MAY) == set()
    LifeReading.objects.update(base_cpu_ns=149)
    assert unexplained_lines([("a", Meter.CPU, used)], now=AFTER_MAY) == {"a"}
    # Long after, nobody keeps what could explain it.
    assert unexplained_lines([("a", Meter.CPU, used)], now=NOON + timedelta(days=91)) == set()


def spoilt(account_name: str, number: str) -> Invoice:
    """A final invoice whose usage fee is not what its line says."""
    account = open_account(account_name)
    cpu = usage_line(Meter.CPU, 3600 * CPU_S, "3.60", unit_price=Decimal("0.001"))
    figures = {"usage_fee": 4, "total_amount": 4, "amount_due": 4}
    return issue(draft_of(account, [(cpu, (), ())], **figures), number=number)


@pytest.mark.django_db
@pytest.mark.parametrize("seal", ["", "f" * 64])
def test_evidence_is_held_against_the_invoices_hash(seal: str) -> None:
    cpu = usage_line(Meter.CPU, 3600 * CPU_S, "3.60", unit_price=Decimal("0.001"))
    figures = dict.fromkeys(("usage_fee", "total_amount", "amount_due"), Decimal("3.60"))
    used = [Used("sbx-1", 1600 * CPU_S), Used("sbx-2", 2000 * CPU_S)]
    invoice = draft_of(open_account(), [(cpu, used, ())], **figures)
    issue(invoice, **({"evidence_hash": seal} if seal else {}))
    statement = conservation_of([invoice.pk], now=AFTER_MAY)[invoice.pk]
    assert (statement.has_evidence, statement.holds) == (True, not seal)


@pytest.mark.django_db
def test_an_invoice_that_is_being_issued_is_held_against_the_ledger() -> None:
    cpu = usage_line(Meter.CPU, 3600 * CPU_S, "3.60", unit_price=Decimal("0.001"))
    invoice = draft_of(open_account(), [(cpu, [Used("sbx-1", 3600 * CPU_S)], ())])
    for name in ("usage_fee", "credits_used"):
        setattr(invoice, name, Decimal("3.60"))
    assert state_conservation(rows_of([invoice], now=AFTER_MAY)[invoice.pk]).holds

    invoice.evidence_hash = hash_of_evidence(["0" * 64])
    with pytest.raises(NotConservedError, match=r"credits_used: is 3\.60, should be 0"):
        refuse_unconserved(rows_of([invoice], now=AFTER_MAY)[invoice.pk])


@pytest.mark.django_db
def test_the_round_keeps_what_does_not_add_up_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("billing.services.conservation.INVOICES_AT_A_TIME", 1)
    first, second = spoilt("Ada", "2025-000001"), spoilt("Bob", "2025-000002")
    right = open_account("Cyd")
    record_first_invoice(right.pk)
    InvoiceMismatch.objects.create(invoice=bill(right), text="of yesterday", found_at=NOON)

    after = None
    for _ in range(4):
        after = services.check_conservation(now=AFTER_MAY, after=after)
    assert after is None
    for _ in range(2):
        services.check_conservation(now=AFTER_MAY, after=None)

    found = InvoiceMismatch.objects.order_by("invoice_id")
    assert [(row.invoice, row.text) for row in found] == [
        (first, "usage_fee: is 4.0000, should be 3.6000"),
        (second, "usage_fee: is 4.0000, should be 3.6000"),
    ]
    assert "soulbox_invoice_mismatches 2.0" in Client().get("/metrics").content.decode()


@pytest.mark.django_db
def test_a_round_goes_on_where_it_stopped_and_begins_once_a_day(
    set_clock: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    answers = iter([7, 9, None, None])

    def check(*, now: datetime, after: int | None) -> int | None:
        asked.append(after)
        set_clock(now + 2 * tasks.CHECKING_TIME)
        return next(answers)

    monkeypatch.setattr(services, "check_conservation", check)
    cache.clear()
    for minutes in (0, 5, 10, 15, 60):
        set_clock(AFTER_MAY + timedelta(minutes=minutes))
        tasks.check_conservation()
    assert asked == [None, 7, 9]
    set_clock(AFTER_MAY + timedelta(days=1))
    tasks.check_conservation()
    assert asked == [None, 7, 9, None]


@pytest.mark.django_db
class TestTheCommand:
    def run(self, *arguments: str) -> str:
        told = StringIO()
        call_command("conservation", *arguments, stdout=told)
        return told.getvalue()

    def test_it_says_of_a_month_that_all_holds(self) -> None:
        account = open_account()
        record_first_invoice(account.pk)
        invoice = bill(account)

        answer = json.loads(self.run("--month", "2026-05", "--json"))
        assert answer["mismatched"] == 0
        [told] = answer["invoices"]
        assert (told["invoice"], told["number"], told["holds"]) == (
            invoice.pk,
            invoice.number,
            True,
        )
        assert {m["meter"]: m["rated"] for m in told["meters"]}["cpu"] == str(3600 * CPU_S)
        assert self.run("--month", "2026-06") == ""
        assert "sums hold" in self.run("--invoice", str(invoice.number))

    def test_it_fails_where_an_invoice_does_not_add_up(self) -> None:
        invoice = spoilt("Ada", "2026-000001")
        with pytest.raises(CommandError, match="1 do not add up"):
            self.run("--invoice", str(invoice.number))

    @pytest.mark.parametrize(
        "arguments", [("--month", "May"), ("--invoice", "2026-1"), ("--month", "2026-13")]
    )
    def test_it_names_the_argument_that_is_no_good(self, arguments: tuple[str, str]) -> None:
        with pytest.raises(CommandError, match=f"{arguments[0]}: "):
            self.run(*arguments)
