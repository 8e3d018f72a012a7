from __future__ import annotations

import pytest
from django.db import IntegrityError, ProgrammingError, connection

from billing.models import CreditEntry, CreditGrant
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("table", ["billing_creditentry", "billing_creditgrant"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_the_application_cannot_change_the_credit_ledger(table: str, statement: str) -> None:
    with (
        connection.cursor() as cursor,
        pytest.raises(ProgrammingError, match="permission denied"),
    ):
        cursor.execute(statement.format(table))


@pytest.mark.parametrize(
    ("kind", "amount"),
    [("grant", -1), ("grant", 0), ("expire", 1), ("revoke", 1), ("expire", 0)],
)
def test_an_entry_with_the_wrong_sign_is_refused(kind: str, amount: int) -> None:
    grant = CreditGrant.objects.get(account=open_account(plan_code="team"))
    with pytest.raises(IntegrityError, match="credit_entry_has_the_sign_of_its_kind"):
        CreditEntry.objects.create(grant=grant, kind=kind, amount=amount, recorded_at=NOON)


@pytest.mark.parametrize(("kind", "amount"), [("use", -1), ("refund", 1)])
def test_use_and_refund_name_their_invoice(kind: str, amount: int) -> None:
    grant = CreditGrant.objects.get(account=open_account(plan_code="team"))
    with pytest.raises(IntegrityError, match="credit_entry_names_the_invoice_it_paid"):
        CreditEntry.objects.create(grant=grant, kind=kind, amount=amount, recorded_at=NOON)


def test_credit_is_granted_once() -> None:
    grant = CreditGrant.objects.get(account=open_account(plan_code="team"))
    with pytest.raises(IntegrityError, match="credit_is_granted_once"):
        CreditEntry.objects.create(grant=grant, kind="grant", amount=1, recorded_at=NOON)
