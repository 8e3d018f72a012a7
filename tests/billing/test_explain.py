from __future__ import annotations

import json
import logging
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from billing import services
from billing.credits import CreditKind
from billing.explain import SANDBOXES_AT_A_TIME, checks_of, share_out
from billing.explain_queries import NoSuchLineError, explain_line, windows_of
from billing.models import Account, BilledLateUsage, DiscountRule, Invoice, Price
from billing.services.credits import Gift
from metering.evidence import LifeEvidence
from metering.meters import GB, Meter
from metering.models import UsageRecord
from metering.period import WINDOW
from tests.billing.final_invoices import Used, draft_of, issue, line, usage_line
from tests.billing.price_lists import add_tiered_price, make_book
from tests.billing.test_late_usage import become_late
from tests.billing.usage import AFTER_MAY, JUNE, MAY, NOON, bill, open_account, record_usage

CPU_S = 10**9


def tiered_account() -> Account:
    """CPU: 1 once, 0.01 to 1,000 s, 0.001 beyond. Memory: 0.01 beyond 30 GB-s, at least 5."""
    account = open_account()
    book = make_book("tiered", account=account)
    add_tiered_price(book, Meter.CPU, [("1000", "0.01", "1"), (None, "0.001", "0")], "graduated")
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
        agreed=services.AgreedTerms(fee=Decimal(10), price_book=book),
    )
    return account


def tiered_invoice() -> Invoice:
    account = tiered_account()
    DiscountRule.objects.create(
        name="Launch", kind="volume", percent=Decimal(10), amount=Decimal("0.5")
    )
    gift = Gift(CreditKind.PROMOTIONAL, Decimal(3), "Welcome", "welcome")
    services.grant_credit(account.pk, gift, now=MAY.start)
    record_usage(account.pk, NOON, cpu_s=1200)
    record_usage(account.pk, NOON + WINDOW, cpu_s=2400, memory_gb_s=100)
    return bill(account)


@pytest.mark.django_db
class TestALine:
    def test_of_tiers_is_told_part_by_part_to_the_total(self) -> None:
        told = explain_line(tiered_invoice().pk, 2)

        assert [(p.kind, p.tier, p.quantity, p.cost) for p in told.parts] == [
            ("flat_fee", 1, Fraction(1), Fraction(1)),
            ("units", 1, Fraction(1000), Fraction(10)),
            ("units", 2, Fraction(2600), Fraction(13, 5)),
        ]
        assert (told.exact_cost, told.rounding, told.amount.text) == (
            Fraction(68, 5),
            Fraction(0),
            "13.60",
        )
        assert told.price_version
        assert told.price_version.book == "Tiered"
        assert told.sandboxes
        [sandbox] = told.sandboxes.page
        assert (sandbox.sandbox_id, sandbox.cost) == ("sbx-1", Fraction(68, 5))
        assert [life.life.quantity for life in sandbox.lives] == [1200 * CPU_S, 2400 * CPU_S]
        assert [(life.life.opening, life.life.closing) for life in sandbox.lives] == [
            (0, 1200 * CPU_S),
            (0, 2400 * CPU_S),
        ]
        assert told.coverage
        assert (told.coverage.applied_ms, told.coverage.measured_ms) == (1_600_000, 1_200_000)
        # 18.60: 10 % is 1.86, and 0.50; this line bears 13.60 ÷ 18.60 of 2.36.
        assert told.discount.text == "1.73"
        assert [(d.name, d.amount.text, d.share.text) for d in told.discounts] == [
            ("Launch", "2.36", "1.73"),
        ]
        assert [(c.kind, c.name, c.amount.text) for c in told.credits] == [
            ("promotional", "Welcome", "3.00")
        ]
        assert told.sums, [check for check in told.checks if not check.holds]

    def test_below_its_minimum_is_lifted_to_it(self) -> None:
        told = explain_line(tiered_invoice().pk, 3)

        assert [(p.kind, p.quantity, p.cost) for p in told.parts] == [
            ("free", Fraction(30), Fraction(0)),
            ("units", Fraction(70), Fraction(7, 10)),
            ("minimum", Fraction(1), Fraction(43, 10)),
        ]
        assert told.sums

    def test_of_a_fee_says_which_part_of_it(self) -> None:
        told = explain_line(tiered_invoice().pk, 1)
        assert (told.kind, told.basis, told.exact_cost) == ("fee", "10.00 USD", Fraction(10))
        assert told.sandboxes is None
        assert told.sums

    def test_is_rounded_once_and_says_by_how_much(self) -> None:
        account = open_account()
        record_usage(account.pk, cpu_s=3600)
        told = explain_line(bill(account).pk, 1)
        # 3,600 s at 0.000012 are 0.0432.
        assert (told.exact_cost, told.rounding) == (Fraction("0.0432"), Fraction("-0.0032"))
        assert told.sums

    def test_of_a_draft_is_told_from_the_live_records(self) -> None:
        account = open_account()
        record_usage(account.pk, cpu_s=3600)
        draft = services.draft_invoice(account.pk, period=MAY, now=MAY.end)
        told = explain_line(draft.pk, 1)
        assert not told.is_kept
        assert told.sandboxes
        assert [one.quantity for one in told.sandboxes.page] == [3600 * CPU_S]
        assert told.sums

    def test_that_is_not_there_is_not_explained(self) -> None:
        with pytest.raises(NoSuchLineError):
            explain_line(tiered_invoice().pk, 9)


def every_other_kind(**figures: Any) -> Invoice:
    """Fees, a true-up and adjustments: 30 - 20 - 1 + 15.2 + 4.80 - 2 + 50 of a top-up's own."""
    lines = [
        (line("fee", "30", "Pro plan", unit_price=30), (), ()),
        (
            line("unused_fee", "-20", "Old plan", unit_price=60, quantity=1, unit_size=3),
            (),
            (),
        ),
        (line("fee_discount", "-1", "Yearly", unit_price=1), (), ()),
        (line("true_up", "15.20", "Up to the minimum", unit_price=20), (), ()),
        (
            usage_line(Meter.CPU, 480 * CPU_S, "4.80", unit_price=Decimal("0.01")),
            (Used("sbx-1", 480 * CPU_S, closing=500 * CPU_S, opening=20 * CPU_S),),
            (),
        ),
        (
            line(
                "adjustment",
                "-2.00",
                "CPU time, known late",
                meter="cpu",
                quantity=-200 * CPU_S,
            ),
            (),
            (),
        ),
    ]
    columns = {
        "subscription_fee": Decimal("24.20"),
        "usage_fee": Decimal("4.80"),
        "adjustments": -2,
        "total_amount": 27,
        "amount_due": 27,
    }
    invoice = draft_of(open_account(), lines, **{**columns, **figures})
    invoice.applied_discounts.create(
        position=1,
        name="Yearly",
        base="annual_fee",
        base_amount=30,
        percent=0,
        fixed_amount=1,
        amount=1,
    )
    for number, quantity in enumerate([-150, -50]):
        BilledLateUsage.objects.create(
            invoice=invoice,
            meter="cpu",
            sandbox_id="sbx-1",
            life_id=number,
            window_start=NOON + number * WINDOW,
            quantity=quantity * CPU_S,
        )
    return issue(invoice)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("position", "basis", "exact"),
    [
        (1, "30.00 USD", 30),
        (2, "60.00 USD × 1 ÷ 3 seconds", -20),
        (3, "1.00 USD", -1),
        (
            4,
            "Committed minimum of 20.00 USD, less what usage came to after discounts",
            Fraction("15.2"),
        ),
        (5, "", Fraction("4.8")),
        (6, "A difference to what an earlier period came to.", None),
    ],
)
def test_every_kind_of_line_is_explained_in_its_way(
    position: int, basis: str, exact: Fraction | None
) -> None:
    told = explain_line(every_other_kind().pk, position)
    assert (told.basis, told.exact_cost) == (basis, exact)
    assert told.sums, [check for check in told.checks if not check.holds]


@pytest.mark.django_db
def test_a_line_bears_a_share_of_each_discount_in_their_order() -> None:
    cpu = usage_line(
        Meter.CPU, 480 * CPU_S, "4.80", unit_price=Decimal("0.01"), discount=Decimal("1.01")
    )
    figures = {"usage_fee": Decimal("4.80"), "discounts": Decimal("1.01")}
    due = {"total_amount": Decimal("3.79"), "amount_due": Decimal("3.79")}
    invoice = draft_of(open_account(), [(cpu, (), ())], **figures, **due)
    for position, (name, amount) in enumerate([("First", "0.67"), ("Second", "0.34")], start=1):
        invoice.applied_discounts.create(
            position=position,
            name=name,
            base="usage_fee",
            base_amount=Decimal("4.80"),
            percent=0,
            fixed_amount=Decimal(amount),
            amount=Decimal(amount),
        )
    told = explain_line(invoice.pk, 1)
    assert [(d.name, d.share.text) for d in told.discounts] == [
        ("First", "0.67"),
        ("Second", "0.34"),
    ]
    assert told.discount.text == "1.01"


@pytest.mark.django_db
def test_an_adjustment_tells_the_late_usage_it_is_for() -> None:
    told = explain_line(every_other_kind().pk, 6)
    assert [late.quantity for late in told.late_usage] == [-150 * CPU_S, -50 * CPU_S]
    assert "late usage of the line" in {check.name for check in told.checks}


@pytest.mark.django_db
def test_late_usage_of_a_span_is_not_told_of_a_correction_of_it() -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=1_000_000)
    may = bill(account)
    Price.objects.filter(meter="cpu").update(unit_price=Decimal("0.00002"))
    services.rerate(may.pk, by=services.Author("Wrong price"), now=AFTER_MAY)
    become_late(account, 500_000 * CPU_S)
    june = bill(account, JUNE)
    late, corrected = (explain_line(june.pk, position) for position in (1, 2))
    assert (late.amount.text, corrected.amount.text) == ("10.00", "8.00")
    assert [one.quantity for one in late.late_usage] == [500_000 * CPU_S]
    assert corrected.late_usage == ()
    assert (late.sums, corrected.sums) == (True, True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("used", "amount", "wrong"),
    [
        (479, "4.80", ["quantity of all sandboxes", "exact cost of all sandboxes"]),
        (480, "4.81", ["parts, rounded once", "invoice: usage_fee"]),
    ],
)
def test_what_does_not_add_up_says_so_and_is_logged(
    used: int, amount: str, wrong: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cpu = usage_line(Meter.CPU, 480 * CPU_S, amount, unit_price=Decimal("0.01"))
    invoice = draft_of(
        open_account(),
        [(cpu, [Used("sbx-1", used * CPU_S)], ())],
        usage_fee=Decimal("4.80"),
        total_amount=Decimal("4.80"),
        amount_due=Decimal("4.80"),
    )
    with caplog.at_level(logging.ERROR):
        told = explain_line(issue(invoice).pk, 1)
    assert not told.sums
    assert [check.name for check in told.checks if not check.holds] == wrong
    assert "invoice line does not add up" in caplog.messages


def life(sandbox: str, quantity: int) -> LifeEvidence:
    return LifeEvidence(
        sandbox, 1, "c", NOON, 1, NOON, NOON, 10, quantity, None, None, 900_000, 900_000, "0" * 64
    )


def test_thousands_of_sandboxes_come_by_pages_that_each_add_up() -> None:
    lives = [life(f"sbx-{at:04}", at) for at in range(1, 251)]
    quantity, cost = 250 * 251 // 2, Fraction(100, 3)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = share_out(lives, quantity=quantity, cost=cost, after=after)
        assert all(check.holds for check in checks_of(page, quantity=quantity, cost=cost))
        assert page.count == 250
        seen += [one.sandbox_id for one in page.page]
        after = page.next_after
    assert seen == sorted(seen)
    assert len(seen) == 250 == 2 * SANDBOXES_AT_A_TIME + 50


def test_what_nobody_used_is_without_usage() -> None:
    shared = share_out([], quantity=0, cost=Fraction(5))
    assert (shared.page, shared.without_usage) == ((), Fraction(5))
    assert all(check.holds for check in checks_of(shared, quantity=0, cost=Fraction(5)))


@pytest.mark.django_db
class TestTheApi:
    def get(self, account: Account, path: str) -> Any:
        key = services.issue_api_key(account.pk, name="test", now=NOON).key
        return Client().get(f"/api/v1/invoices/{path}", headers={"Authorization": f"Bearer {key}"})

    def test_tells_exact_numbers_as_text(self) -> None:
        invoice = tiered_invoice()
        answer = self.get(invoice.account, f"{invoice.pk}/lines/2/explain")

        assert answer.status_code == 200
        told = answer.json()
        assert told["sums"] is True
        assert told["parts"][2] == {
            "kind": "units",
            "tier": 2,
            "quantity": {"exact": "2600", "decimal": "2600"},
            "unit_price": "0.001",
            "cost": {"exact": "13/5", "decimal": "2.6"},
        }
        [sandbox] = told["sandboxes"]["page"]
        assert sandbox["lives"][0]["closing_counter"] == str(1200 * CPU_S)
        assert sandbox["lives"][0]["samples"] == 300
        assert not [value for value in _leaves(told) if isinstance(value, float)]

    def test_tells_the_windows_of_a_life_while_they_are_kept(self) -> None:
        invoice = tiered_invoice()
        told = self.get(invoice.account, f"{invoice.pk}/lines/2/explain").json()
        life_id = told["sandboxes"]["page"][0]["lives"][0]["life_id"]
        path = f"{invoice.pk}/lines/2/lives/{life_id}"

        [window] = self.get(invoice.account, path).json()
        assert (window["window_start"], window["quantity"]) == (
            "2026-05-10T12:00:00Z",
            str(1200 * CPU_S),
        )
        assert (window["opening_counter"], window["closing_counter"]) == ("0", str(1200 * CPU_S))
        assert self.get(invoice.account, f"{path}?after=2026-05-10T12:00:00Z").json() == []
        assert self.get(invoice.account, f"{path}?after=noon").status_code == 400
        assert self.get(invoice.account, f"{invoice.pk}/lines/2/lives/1").status_code == 404

    def test_shows_nothing_of_another_account(self) -> None:
        invoice = tiered_invoice()
        told = explain_line(invoice.pk, 2)
        assert told.sandboxes
        life_id = told.sandboxes.page[0].lives[0].life.life_id
        stranger = open_account("Bob")
        for path in ("explain", f"lives/{life_id}"):
            answer = self.get(stranger, f"{invoice.pk}/lines/2/{path}")
            assert answer.status_code == 404

    def test_has_no_line_that_is_not_there(self) -> None:
        invoice = tiered_invoice()
        assert self.get(invoice.account, f"{invoice.pk}/lines/7/explain").status_code == 404


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for entry in value.values() for leaf in _leaves(entry)]
    if isinstance(value, list):
        return [leaf for entry in value for leaf in _leaves(entry)]
    return [value]


@pytest.mark.django_db
def test_windows_of_network_are_by_interface() -> None:
    account = open_account()
    record_usage(account.pk, egress_bytes=3 * GB)
    invoice = bill(account)
    told = explain_line(invoice.pk, 1)
    assert told.sandboxes
    [window] = windows_of(invoice.pk, 1, told.sandboxes.page[0].lives[0].life.life_id)
    assert (window.interface, window.quantity, window.closing) == ("eth0", 3 * GB, 3 * GB)


@pytest.mark.django_db
class TestTheCommand:
    def run(self, *arguments: str) -> str:
        told = StringIO()
        call_command("explain_invoice", *arguments, stdout=told)
        return told.getvalue()

    def test_it_explains_every_line(self) -> None:
        told = self.run(str(tiered_invoice().number))
        assert told.count("sums: true") == 3
        assert "units, tier 2: 2600 × 0.001 = 13/5" in told

    def test_it_prints_what_the_api_says(self) -> None:
        invoice = tiered_invoice()
        answer = json.loads(self.run(str(invoice.number), "--line", "2", "--json"))
        assert (answer["invoice"], answer["mismatched"]) == (invoice.pk, [])
        [told] = answer["lines"]
        assert (told["position"], told["exact_cost"]["exact"], told["sums"]) == (2, "68/5", True)

    def test_it_refuses_what_is_not_there(self) -> None:
        with pytest.raises(CommandError, match="there is no invoice 2026-9"):
            self.run("2026-9")
        with pytest.raises(CommandError, match="--line: There is no line 9"):
            self.run(str(tiered_invoice().number), "--line", "9")

    def test_it_fails_where_something_does_not_add_up(self) -> None:
        due = Decimal("26.99")
        invoice = every_other_kind(usage_fee=Decimal("4.79"), total_amount=due, amount_due=due)
        with pytest.raises(CommandError, match="does not add up"):
            self.run(str(invoice.number), "--line", "5")


@pytest.mark.django_db
def test_a_line_is_explained_after_its_records_are_gone() -> None:
    cpu = usage_line(Meter.CPU, 300 * CPU_S, "3.00", unit_price=Decimal("0.01"))
    used = [Used("sbx-a", 100 * CPU_S), Used("sbx-b", 200 * CPU_S)]
    figures = {"usage_fee": 3, "total_amount": 3, "amount_due": 3}
    invoice = issue(draft_of(open_account(), [(cpu, used, ())], **figures))
    assert not UsageRecord.objects.exists()
    told = explain_line(invoice.pk, 1)
    assert told.sandboxes
    assert [(one.sandbox_id, one.cost) for one in told.sandboxes.page] == [
        ("sbx-a", Fraction(1)),
        ("sbx-b", Fraction(2)),
    ]
    assert told.sums
