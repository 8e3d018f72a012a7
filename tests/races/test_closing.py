"""An account that is closed from everywhere at the same moment, while somebody chooses a plan."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from billing import services
from billing.models import AccountClosing, Invoice, MailMessage, Subscription
from tests.billing.mail import open_with_owner
from tests.billing.usage import OPENED, read_streams_until
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
