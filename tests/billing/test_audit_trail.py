from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pghistory
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection, transaction

from billing import services
from billing.credits import CreditKind
from billing.models import (
    AuditEntry,
    AuditTrail,
    DiscountRule,
    Plan,
    Price,
    PriceTier,
    WebhookEndpoint,
)
from tests.billing.usage import NOON, open_account

pytestmark = pytest.mark.django_db

FEES = {"monthly_fee": 299}, {"monthly_fee": 300}


def last_entry() -> AuditEntry:
    entry = AuditEntry.objects.order_by("id").last()
    assert entry is not None
    return entry


def by_saving() -> None:
    plan = Plan.objects.get(code="team")
    plan.monthly_fee = Decimal(300)
    plan.save()


def by_update() -> None:
    Plan.objects.filter(code="team").update(monthly_fee=300)


def by_bulk_update() -> None:
    plan = Plan.objects.get(code="team")
    plan.monthly_fee = Decimal(300)
    Plan.objects.bulk_update([plan], ["monthly_fee"])


def by_sql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_plan SET monthly_fee = 300 WHERE code = 'team'")


@pytest.mark.parametrize("change", [by_saving, by_update, by_bulk_update, by_sql])
def test_a_change_is_kept_with_before_and_after_however_it_came(change: Callable[[], None]) -> None:
    change()
    entry = AuditEntry.objects.get(table_name="billing_plan")
    assert entry.operation == "update"
    assert entry.row_id == str(Plan.objects.get(code="team").pk)
    assert (entry.before, entry.after) == FEES
    assert (entry.actor_id, entry.reason) == (None, "")


def test_rows_that_come_by_copy_are_kept() -> None:
    with connection.cursor() as cursor:
        price = Price.objects.values_list("pk", flat=True)[0]
        with cursor.copy(
            "COPY billing_pricetier (price_id, position, up_to, unit_price, flat_fee) FROM STDIN"
        ) as copy:
            copy.write_row((price, 7, None, Decimal("0.5"), Decimal(0)))
    entry = AuditEntry.objects.get(table_name="billing_pricetier")
    assert (entry.operation, entry.before) == ("insert", None)
    assert (entry.after or {})["unit_price"] == Decimal("0.5")
    # What was written is no price of a plain charge; the database would refuse it at the commit.
    PriceTier.objects.all().delete()
    assert last_entry().operation == "delete"
    assert last_entry().after is None


def test_a_write_that_changes_nothing_is_no_entry() -> None:
    Plan.objects.filter(code="team").update(monthly_fee=299)
    assert not AuditEntry.objects.filter(table_name="billing_plan").exists()


def test_the_billing_run_leaves_no_entry_for_the_period_it_opens() -> None:
    account = open_account()
    before = AuditEntry.objects.count()
    account.open_period_end = NOON.replace(year=2030)
    account.save()
    assert AuditEntry.objects.count() == before


def test_what_a_context_says_is_the_actor_and_the_reason() -> None:
    ada = User.objects.create_user("ada")
    with pghistory.context(user=ada.pk, reason="New list prices"):
        DiscountRule.objects.update(percent=Decimal(7))
    entry = last_entry()
    assert (entry.actor, entry.reason) == (ada, "New list prices")


def test_the_system_is_no_actor() -> None:
    account = open_account()
    services.park_account(account.pk, reason="UsageUnpricedError", now=NOON)
    entry = last_entry()
    assert (entry.table_name, entry.account_id) == ("billing_account", account.pk)
    assert entry.actor is None
    assert (entry.after or {})["parked_reason"] == "UsageUnpricedError"


def test_rights_of_staff_are_kept_and_passwords_are_not() -> None:
    user = User.objects.create_user("ada", password="secret")  # noqa: S106 - a test's own
    assert "password" not in (last_entry().after or {})
    group = Group.objects.create(name="Clerks")
    for change, table in (
        (lambda: user.groups.add(group), "auth_user_groups"),
        (lambda: group.permissions.add(Permission.objects.all()[0]), "auth_group_permissions"),
        (
            lambda: user.user_permissions.add(Permission.objects.all()[0]),
            "auth_user_user_permissions",
        ),
        (lambda: User.objects.filter(pk=user.pk).update(is_superuser=True), "auth_user"),
    ):
        change()
        assert last_entry().table_name == table
    count = AuditEntry.objects.count()
    user.set_password("another")
    user.save(update_fields=["password"])
    assert AuditEntry.objects.count() == count


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_auditentry SET reason = 'nothing to see'",
        "DELETE FROM billing_auditentry",
        "TRUNCATE billing_auditentry",
        "UPDATE billing_audittrail SET reason = 'nothing to see'",
    ],
)
def test_the_application_cannot_change_the_trail(statement: str) -> None:
    by_update()
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert (last_entry().before, last_entry().after) == FEES


def test_the_trail_shows_what_people_did_to_credit_and_to_invoices_as_their_histories_say() -> None:
    ada = User.objects.create_user("ada")
    account = open_account()
    gift: dict[str, Any] = {"amount": Decimal(5), "reason": "Outage", "reference": "outage-1"}
    grant = services.grant_credit(
        account.pk,
        services.Gift(kind=CreditKind.PROMOTIONAL, **gift),
        now=NOON,
        granted_by_id=ada.pk,
    )
    shown = AuditTrail.objects.get(table_name="billing_creditgrant")
    assert (shown.actor, shown.reason, shown.row_id) == (ada, "Outage", str(grant.pk))
    assert shown.after == {"grant": 5, "kind": "promotional"}
    assert shown.account == account


def test_a_key_or_an_endpoint_is_kept_without_its_secrets_and_signs_of_life() -> None:
    account = open_account()
    issued = services.issue_api_key(account.pk, name="Books", now=NOON)
    kept = last_entry()
    assert (kept.table_name, kept.operation) == ("billing_apikey", "insert")
    assert (kept.after or {})["name"] == "Books"
    assert issued.row.key_hash not in str(kept.after)
    row = services.add_endpoint(account.pk, url="https://8.8.8.8/", now=NOON).row
    kept = last_entry()
    assert (kept.table_name, kept.row_id) == ("billing_webhookendpoint", str(row.pk))
    assert row.secret_seed not in str(kept.after)
    assert row.secret_check not in str(kept.after)
    count = AuditEntry.objects.count()
    services.authenticate_api_key(issued.key, now=NOON)
    WebhookEndpoint.objects.update(claimed_until=NOON, failing_since=NOON, last_took_ms=7)
    assert AuditEntry.objects.count() == count
    services.revoke_api_key(issued.row.pk, now=NOON)
    services.rotate_secret(row.pk, now=NOON)
    assert set(last_entry().after or {}) == {"old_secret_until"}
    assert AuditEntry.objects.count() == count + 2
