"""An account that is closed from everywhere at the same moment, while somebody chooses a plan."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from uuid import UUID

import pytest

from billing import services
from billing.models import (
    Account,
    AccountClosing,
    Invitation,
    Invoice,
    MailMessage,
    Membership,
    Subscription,
)
from billing.models.members import OPEN
from billing.services import closing, invitations
from tests.billing.mail import open_with_owner
from tests.billing.usage import AFTER_MAY, MAY, OPENED, read_streams_until
from tests.races.test_members import without_a_lock
from tests.races.workers import WORKERS, run_at_once

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = datetime(2026, 5, 17, 6, 7, tzinfo=UTC)
SETTLED = ASKED + timedelta(hours=1)


def test_ten_close_an_account_once_while_plans_are_chosen() -> None:
    account = open_with_owner()
    services.subscribe(account.pk, plan_code="professional", now=OPENED)

    def close(number: int) -> None:
        if number % 2:
            services.close_account(account.pk, now=ASKED)
            return
        with suppress(services.AccountClosingError):
            services.choose_plan(account.pk, plan_code="team", now=ASKED)

    assert run_at_once(close) == [0] * WORKERS
    account.refresh_from_db()
    assert AccountClosing.objects.count() == 1
    assert MailMessage.objects.filter(kind="account_closing").count() == 1
    assert not Subscription.objects.filter(expires_at=None).exists()
    assert not Subscription.objects.filter(expires_at__gt=account.ends_at).exists()


def begin_while_it_closes(begin: Callable[[UUID], object]) -> UUID:
    """Close an account while something begins in it, which may be refused; return the account."""
    account = open_with_owner()
    services.subscribe(account.pk, plan_code="professional", now=OPENED)

    def work(number: int) -> None:
        if number == 0:
            services.close_account(account.pk, now=ASKED)
            return
        with suppress(services.AccountClosingError):
            begin(account.pk)

    assert run_at_once(work, workers=2) == [0, 0]
    return account.pk


def choose(account_id: UUID) -> None:
    services.choose_plan(account_id, plan_code="team", now=ASKED)


def invite(account_id: UUID) -> None:
    services.invite(
        account_id,
        email="bea@example.com",
        role=Membership.Role.VIEWER,
        by=services.Actor(Membership.Role.OWNER),
        now=ASKED,
    )


def runs_on(account_id: UUID) -> bool:
    """Return whether something outlives the last period of an account that was closed."""
    ends_at = Account.objects.get(pk=account_id).ends_at
    return (
        Subscription.objects.filter(expires_at=None).exists()
        or Subscription.objects.filter(expires_at__gt=ends_at).exists()
        or Invitation.objects.filter(OPEN).exists()
    )


@pytest.mark.parametrize("begin", [choose, invite])
def test_what_begins_as_an_account_closes_is_refused_or_ends_with_it(
    begin: Callable[[UUID], object],
) -> None:
    assert not runs_on(begin_while_it_closes(begin))


def test_without_the_accounts_lock_an_invitation_outlives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, withdrawn = (get_context("fork").Barrier(2) for _ in range(2))

    def look_and_wait(account: Account) -> None:
        services.refuse_closing(account)
        looked.wait(20)
        withdrawn.wait(20)

    def wait_and_withdraw(account_id: UUID) -> object:
        looked.wait(20)
        return services.invitations_of(account_id)

    def tell(*_args: object, **_said: object) -> None:
        withdrawn.wait(20)

    for module in (invitations, closing):
        monkeypatch.setattr(module, "lock_account", without_a_lock)
    # As a lock that is none lets them: it looks, the other withdraws all, and then it writes.
    monkeypatch.setattr(invitations, "refuse_closing", look_and_wait)
    monkeypatch.setattr(closing, "invitations_of", wait_and_withdraw)
    monkeypatch.setattr(closing, "write_messages", tell)
    assert runs_on(begin_while_it_closes(invite))


def test_ten_sweeps_make_one_final_invoice_and_close_once() -> None:
    account = open_with_owner()
    services.subscribe(account.pk, plan_code="professional", now=OPENED)
    services.close_account(account.pk, now=ASKED)
    read_streams_until(SETTLED)

    def sweep(_number: int) -> None:
        services.draft_due_invoices(SETTLED)
        services.finalise_due_invoices(SETTLED)
        services.advance_closings(SETTLED)

    # The others may all have looked before there was a draft.
    for _ in range(2):
        assert run_at_once(sweep) == [0] * WORKERS
    [invoice] = Invoice.objects.all()
    assert invoice.kind == "final"
    services.mark_paid(invoice.pk, because=services.Because("Paid"), now=SETTLED)
    assert run_at_once(sweep) == [0] * WORKERS
    account.refresh_from_db()
    assert account.closed_at == SETTLED
    assert MailMessage.objects.filter(kind="account_closed").count() == 1


def test_an_account_that_closes_while_its_month_is_billed_pays_for_all_time_once() -> None:
    account = open_with_owner()
    services.subscribe(account.pk, plan_code="professional", now=OPENED)
    read_streams_until(AFTER_MAY)

    def work(number: int) -> None:
        if number % 2:
            services.draft_due_invoices(AFTER_MAY)
            services.finalise_due_invoices(AFTER_MAY)
            return
        # Once the month's invoice is final, it is to be paid first.
        with suppress(services.ClosingRefusedError):
            services.close_account(account.pk, now=AFTER_MAY)

    assert run_at_once(work) == [0] * WORKERS
    settle(account.pk, AFTER_MAY)
    services.close_account(account.pk, now=AFTER_MAY)
    settle(account.pk, AFTER_MAY + timedelta(hours=1))
    account.refresh_from_db()
    assert account.closed_at is not None
    spans = [
        (invoice.period_start, invoice.period_end)
        for invoice in Invoice.objects.order_by("period_start")
    ]
    assert spans == [(MAY.start, MAY.end), (MAY.end, account.ends_at)]


def settle(account_id: UUID, now: datetime) -> None:
    """Bill what is due, have it paid, and take the closing on."""
    read_streams_until(now)
    services.draft_due_invoices(now)
    services.finalise_due_invoices(now)
    for invoice in Invoice.objects.filter(account=account_id, status="pending"):
        services.mark_paid(invoice.pk, because=services.Because("Paid"), now=now)
    services.advance_closings(now)
