"""A closed account is erased: nothing anywhere names its people, but what the law has kept."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from psycopg import sql

from billing import services
from billing.models import (
    Account,
    ApiKey,
    AuditEntry,
    Budget,
    Invitation,
    Invoice,
    MailMessage,
    Membership,
)
from billing.services.erasing import ErasureRefusedError, erase_account
from payments.models import Customer, PaymentMethod, ProviderCall, WebhookEvent
from payments.services.customers import ensure_customer
from payments.services.events import receive_event
from payments.services.providing import provider
from tests.billing.mail import add_member, start_mailing
from tests.billing.usage import bill, record_usage
from tests.local_stripe import LocalStripe
from tests.payments.month import BILLED, account_with_card, collect

pytestmark = pytest.mark.django_db
LATER = BILLED + timedelta(days=30)
PERSON = ("Lovelace", "Byron Street", "ada@example.com", "DE-1815-1210", "grace@example.com")
# Invoices as they were sent; `billing_audittrail` is a view of others.
KEPT = {"billing_invoice", "billing_invoicefile"}


def an_account(stripe: LocalStripe) -> Account:
    """An account that has billed, paid, written and been written to, and is closed."""
    account = account_with_card(stripe, name="Ada Lovelace")
    services.change_account(
        account.pk,
        services.AccountChange(
            address="12 Byron Street\nLondon",
            tax_id="DE-1815-1210",
            billing_email="ada@example.com",
        ),
        now=BILLED,
    )
    add_member(account, "ada@example.com")
    User.objects.filter(email="ada@example.com").update(first_name="Ada", last_name="Lovelace")
    Invitation.objects.create(
        account=account,
        email="grace@example.com",
        role="viewer",
        token_hash="0" * 64,
        invited_at=BILLED,
        expires_at=LATER,
    )
    ApiKey.objects.create(
        account=account, name="Lovelace's", prefix="sbx", key_hash="1" * 64, created_at=BILLED
    )
    Budget.objects.create(account=account, name="Lovelace's budget", amount=5, thresholds=[50])
    ensure_customer(account.pk, now=BILLED)
    record_usage(account.pk, cpu_s=3_000_000)
    bill(account)
    collect()
    start_mailing()
    services.write_due_messages(BILLED)
    for event in provider().events(since=BILLED - timedelta(days=1), only_undelivered=False):
        receive_event(event, source=WebhookEvent.Source.FETCHED, now=BILLED)
    return account


def tables_that_name(text: str) -> set[str]:
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor, include_views=False)
        found = set()
        for name in names:
            cursor.execute(
                sql.SQL("SELECT EXISTS (SELECT FROM {} t WHERE t::text ILIKE %s)").format(
                    sql.Identifier(name)
                ),
                [f"%{text}%"],
            )
            if cursor.fetchone()[0]:
                found.add(name)
    return found


def test_nothing_names_the_people_of_an_erased_account(stripe: LocalStripe) -> None:
    account = an_account(stripe)
    invoice = Invoice.objects.get()
    with pytest.raises(ErasureRefusedError, match="not closed"):
        erase_account(account.pk, now=LATER)
    for text in PERSON:
        assert tables_that_name(text) - KEPT, text
    Account.objects.filter(pk=account.pk).update(closing_at=LATER, ends_at=LATER, closed_at=LATER)
    parts = {part.what: part for part in erase_account(account.pk, now=LATER)}
    for text in PERSON:
        assert tables_that_name(text) <= KEPT, text
    # What was sent stays as it was.
    again = Invoice.objects.get()
    assert again.buyer == invoice.buyer
    assert again.buyer["name"] == "Ada Lovelace"
    assert parts["final invoices, with name and address"].rows == 1
    assert all(part.rows == 0 or part.why for part in erase_account(account.pk, now=LATER))
    # The trail still tells what happened, and when.
    entry = AuditEntry.objects.filter(table_name="billing_account", operation="insert").get()
    assert entry.after is not None
    assert entry.after["name"] == "(erased)"
    assert entry.after["currency"] == "USD"
    assert not Membership.objects.filter(account=account).exists()
    assert not User.objects.filter(is_active=True, username__startswith="erased-").exists()
    assert not MailMessage.objects.filter(sent_at=None, given_up_at=None).exists()
    # Stripe is told with the next sweep.
    ensure_customer(account.pk, now=LATER)
    told = ProviderCall.objects.filter(operation="customers.update").latest("pk").asked
    assert told["name"] == f"Erased account {str(account.pk)[:8]}"
    assert Customer.objects.get().provider_id
    assert not PaymentMethod.objects.exclude(last4="").exists()


def test_users_with_another_account_and_staff_stay(stripe: LocalStripe) -> None:
    account, other = account_with_card(stripe), services.open_account(name="Other", now=BILLED)
    both = add_member(account, "both@example.com")
    Membership.objects.create(user=both, account=other, role="viewer")
    staff = add_member(account, "staff@example.com")
    User.objects.filter(pk=staff.pk).update(is_staff=True)
    Account.objects.filter(pk=account.pk).update(closing_at=LATER, ends_at=LATER, closed_at=LATER)
    erase_account(account.pk, now=LATER)
    for user, email in ((both, "both@example.com"), (staff, "staff@example.com")):
        user.refresh_from_db()
        assert (user.email, user.is_active) == (email, True)
    assert Membership.objects.get().account == other


def test_the_trail_is_changed_in_no_other_way(stripe: LocalStripe) -> None:
    account = account_with_card(stripe)
    tries = (
        "UPDATE billing_auditentry SET reason = 'x'",
        "SET LOCAL billing.erasing = 'yes'; UPDATE billing_auditentry SET before = '{}'",
        "DELETE FROM billing_auditentry",
    )
    assert AuditEntry.objects.filter(account_id=account.pk).exists()
    for statement in tries:
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def test_the_command_rehearses_and_says_what_is_kept(stripe: LocalStripe) -> None:
    account = an_account(stripe)
    with pytest.raises(CommandError, match="not closed"):
        call_command("erase_account", str(account.pk))
    Account.objects.filter(pk=account.pk).update(closing_at=LATER, ends_at=LATER, closed_at=LATER)
    out = StringIO()
    call_command("erase_account", str(account.pk), "--dry-run", stdout=out)
    assert "kept: the law has invoices kept" in out.getvalue()
    assert Account.objects.get().name == "Ada Lovelace"
    out = StringIO()
    call_command("erase_account", str(account.pk), "--json", stdout=out)
    assert json.loads(out.getvalue())["parts"][0]["rows"] == 1
    assert Account.objects.get().name.startswith("Erased account ")
