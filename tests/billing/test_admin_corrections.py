from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from pytest_django.fixtures import Settings

from billing import services
from billing.models import Correction, CreditNote, Invoice, UnbilledLateUsage
from tests.billing.admin_pages import finance as superuser
from tests.billing.admin_pages import page, press, text_of, viewer
from tests.billing.test_late_usage import SECOND, become_late
from tests.billing.test_rerating import set_cpu_price
from tests.billing.usage import AFTER_MAY, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>"


def invoiced(name: str = "Ada") -> Invoice:
    account = open_account(name)
    record_usage(account.pk, cpu_s=1_000_000, egress_bytes=100 * 2**30)
    return bill(account)


def person(name: str, role: str) -> Client:
    user = User.objects.create_user(name, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def test_finance_issues_notes_in_full_by_amount_and_by_line() -> None:
    finance = superuser()
    invoice = invoiced(HOSTILE)
    cpu, _egress = invoice.lines.order_by("position")
    said = {"reason": HOSTILE, "reference": "1", "what": "amount", "amount": "1.50"}
    assert "Credit note CN-2026-000001 of 1.50 USD." in text_of(
        press(finance, invoice, "credit", **said)
    )
    # Sent twice it is one note.
    press(finance, invoice, "credit", **said)
    line = {f"line_{cpu.pk}": "2"}
    said = {"reason": "Wrong price", "reference": "2", "what": "lines", **line}
    press(finance, invoice, "credit", **said)
    press(finance, invoice, "credit", reason="All", reference="3", what="full")
    totals = CreditNote.objects.order_by("id").values_list("total", flat=True)
    assert list(totals) == [Decimal("1.5"), 2, Decimal("10.5")]
    shown = text_of(finance.get(page(Invoice, invoice.pk, "change")))
    assert "CN-2026-000003" in shown
    for made in (*CreditNote.objects.all(), *Correction.objects.all()):
        assert page(type(made), made.pk, "change") in shown
    assert HOSTILE not in shown
    for row in (page(CreditNote), page(CreditNote, CreditNote.objects.all()[2].pk, "change")):
        shown = text_of(finance.get(row))
        assert "CN-2026-000001" in shown
        assert HOSTILE not in shown


@pytest.mark.parametrize(
    "said",
    [
        {"what": "amount"},
        {"what": "amount", "amount": "99"},
        {"what": "amount", "amount": "-1"},
        {"what": "amount", "amount": "0.001"},
        {"what": "full", "amount": "1"},
        {"what": "lines"},
        {"what": "lines", "reason": ""},
        {"what": "everything"},
    ],
)
def test_a_note_that_cannot_be_is_refused_on_the_form(said: dict[str, str]) -> None:
    response = press(
        superuser(), invoiced(), "credit", **{"reason": "Wrong price", "reference": "1", **said}
    )
    assert response.status_code == 200
    assert "Issue a credit note" in text_of(response)
    assert not Correction.objects.exists()


def test_a_second_person_approves_and_the_author_cannot(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 1
    author, second = person("ada", "finance manager"), person("bob", "finance manager")
    clerk, support = person("cyd", "finance"), person("dan", "support")
    invoice = invoiced()
    set_cpu_price("0.000009")
    assert "waits for a second person's approval" in text_of(
        press(author, invoice, "re_rate", reason="Wrong price")
    )
    correction = Correction.objects.get()
    change = page(Correction, correction.pk, "change")
    approve = page(Correction, correction.pk, "approve")
    assert approve not in text_of(author.get(change))
    assert approve in text_of(second.get(change))
    assert approve not in text_of(clerk.get(change))
    assert "second person" in text_of(press(author, correction, "approve"))
    for client in (clerk, support):
        assert press(client, correction, "approve").status_code == 403
        assert press(client, correction, "reject").status_code == 403
    assert not CreditNote.objects.exists()
    assert "Credit note CN-2026-000001 of 3.00 USD." in text_of(
        press(second, correction, "approve")
    )
    assert approve not in text_of(second.get(change))
    assert "Nothing differs" in text_of(press(author, invoice, "re_rate", reason="Wrong price"))


def test_a_correction_is_rejected(settings: Settings) -> None:
    settings.BILLING_APPROVAL_THRESHOLD = 1
    finance, invoice = superuser(), invoiced()
    press(finance, invoice, "credit", reason="All", reference="3", what="full")
    assert "is rejected" in text_of(press(finance, Correction.objects.get(), "reject"))
    assert not CreditNote.objects.exists()


def test_who_only_looks_corrects_nothing() -> None:
    invoice = invoiced()
    looking = viewer()
    for name in ("credit", "re_rate"):
        assert press(looking, invoice, name, reason="x").status_code == 403
        assert page(Invoice, invoice.pk, name) not in text_of(
            looking.get(page(Invoice, invoice.pk, "change"))
        )
    assert looking.get(page(Correction)).status_code == 200


def test_late_usage_that_nobody_can_bill_is_listed() -> None:
    invoice = invoiced()
    become_late(invoice.account, -2_000_000 * SECOND)
    services.note_unbilled_late_usage(now=AFTER_MAY)
    shown = text_of(superuser().get(page(UnbilledLateUsage)))
    assert "below_zero" in shown
    assert "-2000000 cpu_seconds" in shown
