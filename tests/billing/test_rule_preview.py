"""A preview of a discount rule says what saving it would have changed, and saves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from billing import services
from billing.lifecycle import NOT_FINAL
from billing.models import Account, DiscountRule, Invoice, Plan
from billing.rule_preview import ACCOUNTS_AT_ONCE, RulePreview, preview_rule
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.periods import dollars
from tests.billing.test_desk_lists import HOSTILE
from tests.billing.usage import AFTER_MAY, MAY, NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

ADDRESS = "/admin/billing/discountrule/preview/"
CPU_S = 10_000_000
"""At 0.000012, a usage fee of 120.00."""


@pytest.fixture
def finance(monkeypatch: pytest.MonkeyPatch) -> Client:
    class InJune(datetime):
        @classmethod
        def now(cls, _tz: object = None) -> datetime:  # type: ignore[override]  # a fixed clock
            return AFTER_MAY

    monkeypatch.setattr("billing.admin.discounts.datetime", InJune)
    return admin_pages.finance()


def billed(name: str, *, cpu_s: int = CPU_S, plan_code: str | None = None) -> Account:
    account = open_account(name, plan_code=plan_code)
    record_usage(account.pk, NOON, cpu_s=cpu_s)
    bill(account)
    return account


def rule(**said: object) -> DiscountRule:
    terms: dict[str, object] = {
        "name": "Spring",
        "kind": "volume",
        "percent": Decimal(10),
        "min_amount": Decimal(100),
    }
    return DiscountRule(**terms | said)


def form_of(row: DiscountRule, **changed: str) -> dict[str, str]:
    said = {
        "name": row.name,
        "kind": row.kind,
        "currency": row.currency,
        "scope": row.scope,
        "percent": str(row.percent),
        "amount": str(row.amount),
        "min_amount": str(row.min_amount),
        "min_months": str(row.min_months),
        "priority": str(row.priority),
        "is_active": "on",
    }
    return said | changed


def now_previewed(row: DiscountRule) -> RulePreview:
    return preview_rule(row, now=AFTER_MAY)


def test_a_new_rule_takes_what_it_says_off_those_it_is_for() -> None:
    billed("Ada")
    billed("Below", cpu_s=CPU_S // 2)
    found = now_previewed(rule())
    [effect] = found.effects
    assert (effect.name, effect.period) == ("Ada", MAY)
    assert effect.before.discounts.amount == 0
    assert effect.after.discounts.amount == 12
    assert effect.before.cost - effect.after.cost == effect.after.discounts
    [total] = found.totals
    assert (total.currency, total.accounts, total.changed) == ("USD", 2, 1)
    assert (total.before.cost, total.after.cost) == (dollars("180"), dollars("168"))
    assert (found.touchable, found.stated, found.left_out) == (2, 2, 0)


@pytest.mark.parametrize("plan_code", [None, "professional"])
def test_the_preview_is_what_invoices_say_once_it_is_saved(plan_code: str | None) -> None:
    account = billed("Ada", plan_code=plan_code)
    other = billed("Bob", cpu_s=3 * CPU_S, plan_code=plan_code)
    row = rule(scope="plan", plan=Plan.objects.get(code=plan_code or "developer"))
    foreseen = {effect.account_id: effect.after for effect in now_previewed(row).effects}
    row.save()
    for of in (account, other):
        invoice = Invoice.objects.exclude(status__in=NOT_FINAL).get(account=of)
        again = services.reissue_invoice(
            invoice.pk, because=services.Because("As previewed"), now=AFTER_MAY
        )
        assert again.discounts == foreseen[of.pk].discounts.amount
        assert again.total_amount == foreseen[of.pk].cost.amount


def test_a_rule_that_is_changed_takes_its_own_place() -> None:
    row = rule()
    row.save()
    billed("Ada")
    row.percent = Decimal(25)
    [effect] = now_previewed(row).effects
    assert (effect.before.discounts, effect.after.discounts) == (dollars("12"), dollars("30"))
    row.is_active = False
    [effect] = now_previewed(row).effects
    assert (effect.before.discounts, effect.after.discounts) == (dollars("12"), dollars("0"))


def test_only_accounts_the_rule_may_be_for_are_stated() -> None:
    ada, _ = billed("Ada"), billed("Bob")
    billed("Pro", plan_code="professional")
    assert now_previewed(rule(scope="account", account=ada)).touchable == 1
    professional = Plan.objects.get(code="professional")
    assert now_previewed(rule(scope="plan", plan=professional)).touchable == 1
    assert now_previewed(rule(currency="EUR")).touchable == 0
    assert preview_rule(rule(), now=AFTER_MAY + timedelta(days=70)).touchable == 0


def test_the_preview_ends_in_time_and_says_so() -> None:
    for number in range(ACCOUNTS_AT_ONCE + 1):
        billed(f"No. {number}", cpu_s=CPU_S + number * 1000)

    def ticks() -> Iterator[float]:
        yield from (0.0, 1.0)
        while True:
            yield 1000.0

    time = ticks()
    found = preview_rule(rule(), now=AFTER_MAY, clock=lambda: next(time))
    assert (found.touchable, found.stated, found.is_cut_off) == (26, 25, True)
    # The highest usage fees were looked at.
    assert "No. 0" not in {effect.name for effect in found.effects}


def test_the_page_previews_a_rule_that_is_not_saved(finance: Client) -> None:
    billed(HOSTILE)
    before = DiscountRule.objects.count()
    said = text_of(finance.post(ADDRESS, form_of(rule()), headers={"X-Requested-With": "fetch"}))
    assert "12.00 USD" in said
    assert "1 of the 1 accounts" in said
    assert HOSTILE not in said
    assert "<html" not in said
    assert DiscountRule.objects.count() == before


def test_the_page_previews_a_change_and_leaves_the_rule_as_it_is(finance: Client) -> None:
    billed("Ada")
    row = rule()
    row.save()
    said = text_of(finance.post(f"{ADDRESS}?rule={row.pk}", form_of(row, percent="50")))
    assert "60.00 USD" in said
    assert "<html" in said
    row.refresh_from_db()
    assert row.percent == 10


def test_a_form_that_is_wrong_says_what(finance: Client) -> None:
    said = text_of(finance.post(ADDRESS, form_of(rule(), percent="0")))
    assert "Give a percent or an amount above 0" in said


def test_the_forms_have_a_button_for_it(finance: Client) -> None:
    row = rule()
    row.save()
    assert f"{ADDRESS}?rule={row.pk}" in text_of(finance.get(page(DiscountRule, row.pk, "change")))
    assert ADDRESS in text_of(finance.get(page(DiscountRule, "add")))


def test_who_only_looks_gets_no_preview() -> None:
    viewer = admin_pages.viewer()
    row = rule()
    row.save()
    assert viewer.post(ADDRESS, form_of(row)).status_code == 403
    assert viewer.post(f"{ADDRESS}?rule={row.pk}", form_of(row)).status_code == 403
    assert ADDRESS not in text_of(viewer.get(page(DiscountRule, row.pk, "change")))


def test_a_preview_is_posted_and_of_a_rule_there_is(finance: Client) -> None:
    assert finance.get(ADDRESS).status_code == 405
    assert finance.post(f"{ADDRESS}?rule=999999", form_of(rule())).status_code == 404
