from __future__ import annotations

import json
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from billing.models import Account, Invoice
from tests.billing.admin_pages import finance, viewer
from tests.billing.usage import bill, open_account, record_usage

pytestmark = pytest.mark.django_db
Status = Invoice.Status


def failed_invoice(name: str = "Ada") -> Invoice:
    account = open_account(name)
    record_usage(account.pk, cpu_s=10**6)
    invoice = bill(account)
    Invoice.objects.filter(pk=invoice.pk).update(status=Status.PAYMENT_FAILED)
    return invoice


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("retry_payment", *arguments, stdout=out)
    return out.getvalue()


def statuses() -> list[str]:
    return list(Invoice.objects.order_by("pk").values_list("status", flat=True))


def test_one_payment_is_tried_again_for_somebody_and_a_reason() -> None:
    invoice = failed_invoice()
    failed_invoice("Bob")
    finance()
    user = User.objects.get()
    arguments = (str(invoice.number), "--reason", "The bank says yes", "--by", user.username)
    assert "1 would be tried again." in run(*arguments, "--dry-run")
    assert statuses() == [Status.PAYMENT_FAILED, Status.PAYMENT_FAILED]
    assert "1 are tried again" in run(*arguments)
    assert statuses() == [Status.PENDING_RETRY, Status.PAYMENT_FAILED]
    last = invoice.transitions.order_by("pk").last()
    assert last
    assert (last.reason, last.by) == ("The bank says yes", user)
    # Again it changes nothing.
    assert "1 are tried again" in run(*arguments)
    assert invoice.transitions.filter(reason="The bank says yes").count() == 1


def test_all_of_an_account_or_a_period_are_tried_again() -> None:
    first, second = failed_invoice(), failed_invoice("Bob")
    answer = json.loads(run("--period", "2026-04", "--reason", "x", "--json"))
    assert answer["invoices"] == []
    answer = json.loads(run("--account", str(second.account_id), "--reason", "x", "--json"))
    assert [told["number"] for told in answer["invoices"]] == [second.number]
    answer = json.loads(run("--period", "2026-05", "--reason", "x", "--json"))
    assert [told["number"] for told in answer["invoices"]] == [first.number]
    assert run("--period", "2026-05", "--reason", "x") == "No payment of these failed.\n"


def test_what_is_not_failed_and_who_may_not_are_refused() -> None:
    invoice = failed_invoice()
    viewer()
    with pytest.raises(CommandError, match=r"--by: .* is nobody of staff who may"):
        run(str(invoice.number), "--reason", "x", "--by", User.objects.get().username)
    Invoice.objects.filter(pk=invoice.pk).update(status=Status.VOID)
    with pytest.raises(CommandError, match="is void; only a payment that failed") as refused:
        run(str(invoice.number), "--reason", "x")
    assert refused.value.returncode == 2
    assert Account.objects.get() == invoice.account
