"""Credit granted out of a file: by the service, the command and the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import services
from billing.bulk_credits import GRANTS
from billing.credits import CreditKind
from billing.models import Account, CreditEntry, CreditGrant
from tests.billing import admin_pages
from tests.billing.admin_pages import page, text_of
from tests.billing.test_bulk_credits import file_of
from tests.billing.usage import AFTER_MAY, NOON, open_account

pytestmark = pytest.mark.django_db

AT = page(CreditGrant, "grant_from_file")


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def account() -> Account:
    return open_account("Ada <b>")


def grant_file(content: bytes, **options: Any) -> services.GrantPlan:
    plan = services.plan_grants(content, now=AFTER_MAY)
    return services.grant_in_bulk(content, shown=plan.digest, now=AFTER_MAY, **options)


def row(account: Account, **said: str) -> dict[str, str]:
    return {"account": str(account.pk), **said}


def shown(client: Client, content: bytes) -> str:
    file = SimpleUploadedFile("credits.csv", content)
    response = client.post(AT, {"file": file})
    assert response.status_code == 200
    return text_of(response)


def sealed_in(text: str) -> str:
    (sealed,) = re.findall(r'name="sealed" value="([^"]+)"', text)
    return str(sealed)


def test_a_file_grants_what_granting_one_by_one_does(account: Account) -> None:
    twin = open_account("Twin")
    expires = AFTER_MAY + timedelta(days=30)
    content = file_of(
        row(account, amount="10.50", expires_at=expires.isoformat(), priority="2"),
        row(account, kind="prepaid", amount="7", reference="BT-1"),
    )
    grant_file(content)
    for gift in (
        services.Gift(
            CreditKind.PROMOTIONAL, Decimal("10.50"), "Outage", "INC-7", None, expires, 2
        ),
        services.Gift(CreditKind.PREPAID, Decimal(7), "Outage", "BT-1"),
    ):
        services.grant_credit(twin.pk, gift, now=AFTER_MAY)
        # What the file granted is found under its reference, and is the same credit.
        services.grant_credit(account.pk, gift, now=AFTER_MAY)
    columns = [field.name for field in CreditGrant._meta.concrete_fields]
    columns = [name for name in columns if name not in {"id", "account"}]
    by_file, by_hand = (
        list(CreditGrant.objects.filter(account=whose).values(*columns))
        for whose in (account, twin)
    )
    assert by_file == by_hand
    entries = CreditEntry.objects.order_by("grant__account__name", "amount")
    told = entries.values_list("kind", "amount", "recorded_at", "reference", "reason")
    assert list(told[:2]) == list(told[2:])


def test_a_dry_run_says_what_each_row_does_and_writes_nothing(account: Account) -> None:
    grant_file(file_of(row(account)))
    content = file_of(
        row(account),
        row(account, reference="new"),
        row(account, reference="INC-7 "),
        {"account": "00000000-0000-4000-8000-000000000001"},
        row(account, reference="cent", amount="0.001"),
        row(account, reference="over", expires_at="2026-05-31"),
    )
    before = CreditEntry.objects.count()
    plan = services.plan_grants(content, now=AFTER_MAY)
    outcomes = [row.outcome.value for row in plan.rows]
    assert outcomes == ["granted already", "new", "refused", "refused", "refused", "refused"]
    columns = [fault.column for row in plan.rows for fault in row.faults]
    assert columns == ["reference", "account", "amount", "expires_at"]
    (total,) = plan.totals()
    assert (total.new_count, str(total.new), total.granted_count) == (1, "10.50 USD", 1)
    assert CreditEntry.objects.count() == before


def test_another_credit_under_a_reference_is_refused(account: Account) -> None:
    grant_file(file_of(row(account)))
    for said in ({"amount": "11"}, {"kind": "prepaid"}):
        with pytest.raises(services.BulkRefusedError, match="1 rows are refused") as refused:
            grant_file(file_of(row(account, **said)))
        (planned,) = refused.value.plan.rows
        assert "is promotional credit of 10.50 USD already" in planned.faults[0].message
    assert CreditGrant.objects.count() == 1


def test_a_second_time_grants_nothing(account: Account) -> None:
    content = file_of(row(account), row(account, reference="2"))
    assert grant_file(content).new_count == 2
    again = grant_file(content)
    assert (again.new_count, again.granted_count) == (0, 2)
    assert CreditEntry.objects.count() == 2


def test_one_refused_row_stops_all(account: Account) -> None:
    content = file_of(row(account), row(account, reference="2", amount="1,5"))
    with pytest.raises(services.BulkRefusedError):
        grant_file(content)
    assert not CreditGrant.objects.exists()


def test_what_changed_since_it_was_shown_stops_it(account: Account) -> None:
    content = file_of(row(account))
    plan = services.plan_grants(content, now=AFTER_MAY)
    Account.objects.filter(pk=account.pk).update(currency="EUR")
    with pytest.raises(services.BulkRefusedError, match="Something changed since"):
        services.grant_in_bulk(content, shown=plan.digest, now=AFTER_MAY)
    assert not CreditGrant.objects.exists()


def test_ten_thousand_rows_take_as_many_queries_as_ten(account: Account) -> None:
    def queries(count: int, name: str) -> int:
        content = file_of(*(row(account, reference=f"{name}-{at}") for at in range(count)))
        assert len(content) < GRANTS.most_bytes
        with CaptureQueriesContext(connection) as captured:
            assert grant_file(content).new_count == count
        return len(captured)

    assert queries(10, "few") == queries(10_000, "many") < 20
    assert CreditEntry.objects.count() == 10_010


def test_the_page_shows_then_grants_what_it_showed(finance: Client, account: Account) -> None:
    content = file_of(row(account), row(account, reference="=2", amount="4.50"))
    text = shown(finance, b"\xef\xbb\xbf" + content)
    assert "New: 2; granted already: 0; refused: 0." in text
    assert "15.00 USD" in text
    assert "Ada &lt;b&gt;" in text
    assert "Ada <b>" not in text
    assert not CreditGrant.objects.exists()
    answer = {"sealed": sealed_in(text)}
    response = finance.post(AT, answer, follow=True)
    assert "15.00 USD granted in 2 credits" in text_of(response)
    granted = CreditGrant.objects.order_by("id")
    assert [grant.reference for grant in granted] == ["INC-7", "=2"]
    assert {grant.granted_by and grant.granted_by.username for grant in granted} == {"finance"}
    # Pressed twice, it grants once and says why.
    again = text_of(finance.post(AT, answer))
    assert "Something changed since this was shown" in again
    assert "All of it is granted already" in again
    assert CreditEntry.objects.count() == 2


def test_the_page_names_row_column_and_way_out_and_offers_no_grant(
    finance: Client, account: Account
) -> None:
    text = shown(finance, file_of(row(account), row(account, reference="2", amount="<i>,5")))
    assert "<b>amount</b>: amount is '&lt;i&gt;,5'. Use digits and a point" in text
    assert 'name="sealed"' not in text
    assert "refused: 1." in text


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"account;kind;amount\n1;2;3", "divided by semicolons"),
        (b"account,kind\n\xff,", "not UTF-8"),
        (b"x" * (GRANTS.most_bytes + 1), "is the most"),
        (b"\x00", "NUL"),
    ],
)
def test_a_file_that_is_none_is_refused_on_the_form(
    finance: Client, content: bytes, refusal: str
) -> None:
    assert refusal in shown(finance, content)


def test_what_was_sealed_for_another_or_changed_is_refused(
    finance: Client, account: Account
) -> None:
    sealed = sealed_in(shown(finance, file_of(row(account))))
    other = Client()
    other.force_login(User.objects.create_superuser("other"))
    for client, answer in ((other, sealed), (finance, f"{sealed}x"), (finance, "")):
        assert "Upload the file again" in text_of(client.post(AT, {"sealed": answer}))
    assert not CreditGrant.objects.exists()


def test_what_was_sealed_over_an_hour_ago_is_refused(
    finance: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = sealed_in(shown(finance, file_of(row(account))))
    monkeypatch.setattr("billing.admin.sealing.GOOD_FOR_S", -1)
    assert "Upload the file again" in text_of(finance.post(AT, {"sealed": sealed}))


def test_the_largest_file_comes_back_through_the_page(finance: Client, account: Account) -> None:
    # Digits of a hash do not compress well, as references of other systems do not.
    rows = [
        row(account, reference=f"{at * 0x9E3779B97F4A7C15F39CC0605CEDC834:x}"[-60:])
        for at in range(1, 10_001)
    ]
    content = file_of(*rows)
    answer = {"sealed": sealed_in(shown(finance, content))}
    response = finance.post(AT, answer, follow=True)
    assert "granted in 10,000 credits" in text_of(response)


def test_who_may_not_grant_sees_no_page(account: Account) -> None:
    client = admin_pages.viewer()
    file = SimpleUploadedFile("credits.csv", file_of(row(account)))
    assert client.get(AT).status_code == 403
    assert client.post(AT, {"file": file}).status_code == 403
    assert "grant_from_file" not in text_of(client.get(page(CreditGrant)))


def test_the_command_shows_then_grants(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "credits.csv"
    path.write_bytes(file_of(row(account), row(account, reference="2")))
    said = StringIO()
    call_command("grant_credits", path, "--dry-run", stdout=said)
    assert "row 2: new: Ada <b>, 10.50 USD, INC-7" in said.getvalue()
    assert "USD: new 2, 21.00 USD" in said.getvalue()
    assert not CreditGrant.objects.exists()
    for granted in (2, 0):
        said = StringIO()
        call_command("grant_credits", path, stdout=said)
        assert f"Granted: {granted}." in said.getvalue()
    assert CreditEntry.objects.count() == 2


def test_the_command_refuses_what_the_page_refuses(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "credits.csv"
    said = StringIO()
    with pytest.raises(CommandError, match="file: "):
        call_command("grant_credits", path, stdout=said)
    path.write_bytes(b"account;kind\n1;2")
    with pytest.raises(CommandError, match="semicolons"):
        call_command("grant_credits", path, stdout=said)
    path.write_bytes(file_of(row(account), row(account, amount="1,5", reference="2")))
    with pytest.raises(CommandError, match="1 rows are refused; nothing is granted"):
        call_command("grant_credits", path, stdout=said)
    assert "row 3: amount: amount is '1,5'." in said.getvalue()
    assert not CreditGrant.objects.exists()


def test_an_expired_credit_asked_for_again_is_still_granted_already(account: Account) -> None:
    content = file_of(row(account, expires_at="2026-06-30"))
    plan = services.plan_grants(content, now=NOON)
    services.grant_in_bulk(content, shown=plan.digest, now=NOON)
    later = services.plan_grants(content, now=AFTER_MAY + timedelta(days=60))
    assert later.granted_count == 1
