from __future__ import annotations

import logging
from decimal import Decimal
from fractions import Fraction

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import services
from billing.explain_queries import explain_line
from billing.invoice_explanations import MOST_LINES, InvoiceExplanation, explain_invoice
from billing.models import Invoice, Price
from metering.meters import Meter
from tests.api.calling import Api
from tests.billing.final_invoices import Used, draft_of, issue, line, usage_line
from tests.billing.test_explain import CPU_S, every_other_kind, tiered_invoice
from tests.billing.test_late_usage import become_late
from tests.billing.usage import AFTER_MAY, JUNE, MAY, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

QUERIES = 13
"""In one snapshot: the invoice, its discounts and notes, lines and parts, late usage, the ledger
twice, the evidence's sums, its seal and what is odd in it."""


def wrong_of(told: InvoiceExplanation) -> list[str]:
    checks = (*told.checks, *(check for one in told.lines for check in one.checks))
    return [check.name for check in checks if not check.holds]


def test_every_line_costs_what_its_own_explanation_says() -> None:
    invoice = tiered_invoice()
    told = explain_invoice(invoice.pk)
    assert told.is_kept
    assert [one.line.position for one in told.lines] == [1, 2, 3]
    for one in told.lines:
        by_itself = explain_line(invoice.pk, one.line.position)
        assert one.parts == by_itself.parts
        assert (one.exact_cost, one.rounding) == (by_itself.exact_cost, by_itself.rounding)
        assert (one.amount, one.discount) == (by_itself.amount, by_itself.discount)
        assert (one.basis, one.coverage) == (by_itself.basis, by_itself.coverage)
    assert [one.lives for one in told.lines] == [None, 2, 1]
    assert [(row.name, row.amount) for row in told.discounts] == [("Launch", Decimal("2.36"))]
    assert [(paid.name, paid.amount.text) for paid in told.credits] == [("Welcome", "3.00")]
    assert told.sums, wrong_of(told)
    assert "quantity of all lives" in {check.name for check in told.lines[1].checks}
    assert "invoice: amount_due" in {check.name for check in told.checks}


def test_every_kind_of_line_adds_up() -> None:
    told = explain_invoice(every_other_kind().pk)
    assert told.sums, wrong_of(told)
    assert told.lines[5].checks[0].name == "late usage of the line"
    assert told.lines[3].exact_cost == Fraction("15.2")


def test_late_usage_is_not_counted_for_a_correction_of_the_same_span() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    may = bill(account)
    Price.objects.filter(meter="cpu").update(unit_price=Decimal("0.00002"))
    services.rerate(may.pk, by=services.Author("Wrong price"), now=AFTER_MAY)
    become_late(account, 500_000 * CPU_S)
    told = explain_invoice(bill(account, JUNE).pk)
    assert [len(one.checks) for one in told.lines] == [1, 0]
    assert told.sums, wrong_of(told)


def test_a_draft_is_told_without_evidence() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=3600)
    draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
    told = explain_invoice(draft.pk)
    assert (told.is_kept, told.lines[0].lives, told.sums) == (False, None, True)
    assert told.lines[0].exact_cost == Fraction("0.0432")


def final(used: Used, amount: str = "4.80", **columns: str) -> Invoice:
    cpu = usage_line(Meter.CPU, 480 * CPU_S, amount, unit_price=Decimal("0.01"))
    due = dict.fromkeys(("usage_fee", "total_amount", "amount_due"), Decimal("4.80"))
    return issue(draft_of(open_account(), [(cpu, [used], ())], **due), **columns)


@pytest.mark.parametrize(
    ("used", "amount", "columns", "wrong"),
    [
        (Used("a", 480 * CPU_S), "4.80", {}, []),
        (Used("a", 479 * CPU_S), "4.80", {}, ["quantity of all lives"]),
        (Used("a", 480 * CPU_S), "4.81", {}, ["invoice: usage_fee", "parts, rounded once"]),
        (
            Used("a", 480 * CPU_S),
            "4.80",
            {"evidence_hash": "0" * 64},
            ["invoice: seal of the evidence"],
        ),
        (Used("a", 480 * CPU_S, 481 * CPU_S, 0), "4.80", {}, ["cpu: explained by its counters"]),
    ],
)
def test_what_does_not_add_up_says_so_and_is_logged(
    used: Used,
    amount: str,
    columns: dict[str, str],
    wrong: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if it were looked at while metering keeps what explains its counters.
    monkeypatch.setattr("billing.conservation_queries._steps_kept_since", lambda _now: MAY.start)
    with caplog.at_level(logging.ERROR):
        told = explain_invoice(final(used, amount, **columns).pk)
    assert (told.sums, wrong_of(told)) == (not wrong, wrong)
    assert ("invoice does not add up" in caplog.messages) is bool(wrong)


@pytest.mark.parametrize("count", [1, 30])
def test_queries_are_as_many_for_many_lives_and_lines(
    count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    used = [Used(f"sbx-{at}", CPU_S, closing=CPU_S, opening=0) for at in range(count)]
    lines = [
        (usage_line(Meter.CPU, count * CPU_S, "0.00", unit_price=Decimal(0)), used, ())
        for _ in range(count)
    ]
    invoice = issue(draft_of(open_account(), lines))
    with django_assert_num_queries(QUERIES):
        told = explain_invoice(invoice.pk)
    assert told.sums, wrong_of(told)
    assert [one.lives for one in told.lines] == count * [count]


def test_of_more_lines_than_are_told_all_are_checked() -> None:
    lines = [(line("fee", "1", unit_price=1), (), ()) for _ in range(MOST_LINES + 1)]
    figures = dict.fromkeys(("subscription_fee", "total_amount", "amount_due"), MOST_LINES + 1)
    told = explain_invoice(issue(draft_of(open_account(), lines, **figures)).pk)
    assert (len(told.lines), told.line_count, told.sums) == (MOST_LINES, MOST_LINES + 1, True)


def test_the_api_tells_it_from_the_lines_to_what_is_due() -> None:
    invoice = tiered_invoice()
    told = Api.by_key(invoice.account_id).get(f"invoices/{invoice.pk}/explain").json()
    assert (told["number"], told["sums"], told["line_count"]) == (invoice.number, True, 3)
    # 10.00 of fee, and 18.60 of usage less 2.36 of discounts and 3.00 of credit.
    assert told["totals"]["total_amount"] == "23.24"
    assert [row["amount"] for row in told["lines"]] == ["10.00", "13.60", "5.00"]
    assert told["lines"][1]["exact_cost"] == {"exact": "68/5", "decimal": "13.6"}
    assert told["lines"][1]["quantity"] == "3600000000000"
    assert [row["amount"] for row in told["applied_discounts"]] == ["2.36"]
    assert told["credits"] == [{"kind": "promotional", "name": "Welcome", "amount": "3.00"}]
    assert all(check["holds"] for check in told["checks"])
