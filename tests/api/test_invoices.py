from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries

from billing import caching, services
from billing.models import Account, Invoice
from tests.api.calling import Api
from tests.billing.final_invoices import draft_of, issue, line
from tests.billing.usage import AFTER_MAY, JUNE, MAY, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

LATER = AFTER_MAY + timedelta(days=1)
BECAUSE = services.Because("As it is")
QUERIES_OF_A_LIST = 2
"""The key and the rows."""
QUERIES_OF_LINES = 4
"""The key, whose invoice it is, the lines and their parts."""
QUERIES_OF_AN_INVOICE = 9
"""The key, its state; and in one snapshot: itself, lines, parts, discounts and credit notes."""
QUERIES_OF_A_KEPT_INVOICE = 2
"""The key and its state."""


def three_invoices() -> tuple[Account, list[Invoice]]:
    account = open_account(plan_code="team")
    may, june = bill(account), bill(account, JUNE)
    account.refresh_from_db()
    july = services.draft_invoice(account.pk, period=account.open_period, now=JUNE.end)
    return account, [july, june, may]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [0, 1, 2]),
        ("status=draft", [0]),
        ("status=draft&status=pending", [0, 1, 2]),
        ("status=void", []),
        ("kind=usage", [0, 1, 2]),
        ("kind=top_up", []),
        ("number=2026-000002", [1]),
        ("number=2026-00000", []),
        ("period_start_from=2026-06-01T00:00:00Z", [0, 1]),
        ("period_start_to=2026-06-01T00:00:00Z", [2]),
        ("period_start_from=2026-06-01T02:00:00%2B02:00&period_start_to=2026-06-01T00:00:01Z", [1]),
        ("period_end_from=2026-07-01T00:00:00Z", [0, 1]),
        ("period_end_to=2026-07-01T00:00:00Z", [2]),
    ],
)
def test_invoices_are_found_by_state_number_and_period(query: str, found: list[int]) -> None:
    account, invoices = three_invoices()
    results = Api.by_key(account.pk).get(f"invoices?{query}").json()["results"]
    assert [row["id"] for row in results] == [invoices[at].pk for at in found]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=nonsense", "status"),
        ("kind=nonsense", "kind"),
        ("number=" + 33 * "1", "number"),
        ("period_start_from=yesterday", "period_start_from"),
        ("period_end_to=0001-01-01T00:00:00%2B14:00", "period_end_to"),
    ],
)
def test_what_no_invoice_can_have_is_refused(query: str, field: str) -> None:
    answer = Api.by_key(open_account().pk).get(f"invoices?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("count", [1, 3])
def test_a_list_takes_as_many_queries_of_many_invoices(
    count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    account, _ = three_invoices()
    api = Api.by_key(account.pk)
    api.get("invoices")
    with django_assert_num_queries(QUERIES_OF_A_LIST):
        listed = api.get(f"invoices?page_size={count}").json()["results"]
    assert len(listed) == count


@pytest.mark.parametrize("count", [1, 40])
def test_an_invoice_takes_as_many_queries_with_many_lines(
    count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    invoice = long_invoice(count)
    api = Api.by_key(invoice.account_id)
    api.get("invoices")
    with django_assert_num_queries(QUERIES_OF_AN_INVOICE):
        told = api.get(f"invoices/{invoice.pk}").json()
    with django_assert_num_queries(QUERIES_OF_LINES):
        lines = api.get(f"invoices/{invoice.pk}/lines").json()["results"]
    assert told["lines"] == lines
    assert len(lines) == count


def test_lines_come_by_pages_in_their_order() -> None:
    invoice = long_invoice(3)
    api = Api.by_key(invoice.account_id)
    first = api.get(f"invoices/{invoice.pk}/lines?page_size=2").json()
    assert [row["position"] for row in first["results"]] == [1, 2]
    second = api.client.get(first["next"], headers=api.headers).json()
    assert [row["position"] for row in second["results"]] == [3]
    assert second["next"] is None


def test_lines_of_another_accounts_invoice_are_not_found() -> None:
    invoice = long_invoice(1)
    assert Api.by_key(open_account("Eve").pk).get(f"invoices/{invoice.pk}/lines").status_code == 404


def long_invoice(count: int) -> Invoice:
    lines = [(line("fee", "1.00"), (), ()) for _ in range(count)]
    figures = {"subscription_fee": count, "total_amount": count, "amount_due": count}
    return issue(draft_of(open_account(), lines, **figures))


@pytest.mark.django_db(transaction=True)
class TestAFinalInvoice:
    def test_is_kept(self, django_assert_num_queries: DjangoAssertNumQueries) -> None:
        invoice = used_invoice()
        api = Api.by_key(invoice.account_id)
        first = api.get(f"invoices/{invoice.pk}")
        with django_assert_num_queries(QUERIES_OF_A_KEPT_INVOICE):
            again = api.get(f"invoices/{invoice.pk}")
        assert (again.json(), again["ETag"]) == (first.json(), first["ETag"])

    @pytest.mark.parametrize("forgets", [True, False])
    def test_shows_each_change_at_once(
        self, monkeypatch: pytest.MonkeyPatch, *, forgets: bool
    ) -> None:
        if not forgets:
            # As where the cache was silent while it should have forgotten.
            monkeypatch.setattr(caching, "_forget", list)
        invoice = used_invoice()
        api = Api.by_key(invoice.account_id)
        changes: list[Callable[[], Any]] = [
            lambda: services.mark_payment_failed(invoice.pk, because=BECAUSE, now=LATER),
            lambda: services.retry_payment(invoice.pk, because=BECAUSE, now=LATER),
            # The state that it had before, and not what was kept of that one.
            lambda: services.mark_payment_failed(invoice.pk, because=BECAUSE, now=LATER),
            lambda: credit(invoice, "1"),
            lambda: services.write_off(invoice.pk, because=BECAUSE, now=LATER),
            lambda: services.mark_paid(invoice.pk, because=BECAUSE, now=LATER),
            lambda: credit(invoice, "2"),
        ]
        seen = [shown(api, invoice)]
        for change in changes:
            change()
            seen.append(shown(api, invoice))
        assert seen == [
            ("pending", None, 0),
            ("payment_failed", None, 0),
            ("pending_retry", None, 0),
            ("payment_failed", None, 0),
            ("payment_failed", None, 1),
            ("uncollectible", None, 1),
            ("paid", "2026-06-02T00:15:00Z", 1),
            ("paid", "2026-06-02T00:15:00Z", 2),
        ]

    @pytest.mark.parametrize("forgets", [True, False])
    def test_that_is_voided_is_void_at_once(
        self, monkeypatch: pytest.MonkeyPatch, *, forgets: bool
    ) -> None:
        if not forgets:
            monkeypatch.setattr(caching, "_forget", list)
        invoice = used_invoice()
        api = Api.by_key(invoice.account_id)
        assert shown(api, invoice)[0] == "pending"
        services.void_invoice(invoice.pk, because=BECAUSE, now=LATER)
        assert shown(api, invoice)[0] == "void"

    def test_was_a_draft_that_is_never_kept(self) -> None:
        account = open_account(plan_code="team")
        draft = services.draft_invoice(account.pk, period=MAY, now=AFTER_MAY)
        api = Api.by_key(account.pk)
        assert api.get(f"invoices/{draft.pk}").json()["total_amount"] == "299.00"
        Invoice.objects.filter(pk=draft.pk).update(
            usage_fee=1, total_amount=Decimal(300), amount_due=Decimal(300)
        )
        assert api.get(f"invoices/{draft.pk}").json()["total_amount"] == "300.00"


def used_invoice() -> Invoice:
    account = open_account(plan_code="team")
    record_usage(account.pk, cpu_s=3600)
    return bill(account)


def credit(invoice: Invoice, reference: str) -> None:
    by = services.Author("Too slow", reference=reference)
    services.credit_amount(invoice.pk, Decimal(1), by=by, now=LATER)


def shown(api: Api, invoice: Invoice) -> tuple[Any, ...]:
    """Return what may change of a final invoice; asked for twice, so that it is a kept answer."""
    api.get(f"invoices/{invoice.pk}")
    told = api.get(f"invoices/{invoice.pk}").json()
    return told["status"], told["paid_at"], len(told["credit_notes"])
