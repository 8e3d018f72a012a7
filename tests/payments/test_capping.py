from __future__ import annotations

from datetime import timedelta

import pytest

from billing import services
from billing.models import Account, AccountClosing, Budget, BudgetCap, MailMessage
from payments.models import Customer, PlatformRequest
from payments.services.capping import follow_cap, follow_caps
from payments.services.platform_requests import due_requests, send_request
from tests.billing.test_budgets import budget_of, use
from tests.billing.test_caps import capped_account, look, read
from tests.billing.usage import NOON, open_account
from tests.local_stripe import LocalStripe
from tests.payments.arrears import Debtor, days, dun
from tests.payments.month import collect
from tests.payments.platform_here import Platform

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


def asked(account: Account) -> list[str]:
    rows = PlatformRequest.objects.filter(account=account).order_by("pk")
    return list(rows.values_list("action", flat=True))


def test_the_platform_is_asked_to_stop_a_capped_account_and_to_resume_it(
    platform: Platform,
) -> None:
    account, budget = capped_account()
    open_account("Bob")
    # Whoever capped it died before anybody was asked: the sweep makes up for it, once.
    for _ in range(2):
        follow_caps(NOON)
    assert asked(account) == ["stop"]
    assert PlatformRequest.objects.get().reason == (
        "The hard cap of the budget Sandboxes is reached."
    )
    for request_id in due_requests(NOON):
        assert send_request(request_id, now=NOON)
    Budget.objects.filter(pk=budget.pk).update(amount=5)
    read(account, 15)
    look(15)
    for _ in range(2):
        follow_caps(NOON + 15 * SECOND)
    for request_id in due_requests(NOON + 15 * SECOND):
        send_request(request_id, now=NOON + 15 * SECOND)
    assert asked(account) == platform.told == ["stop", "resume"]
    assert set(PlatformRequest.objects.values_list("account", flat=True)) == {account.pk}


def test_an_account_with_two_caps_resumes_when_both_are_lifted() -> None:
    account, budget = capped_account()
    other = budget_of(account, name="Other", hard_cap=True)
    look(15)
    follow_caps(NOON)
    assert BudgetCap.objects.filter(lifted_at=None).count() == 2
    for number, one in enumerate((budget, other), start=2):
        assert asked(account) == ["stop"]
        Budget.objects.filter(pk=one.pk).update(hard_cap=False)
        read(account, 15 * number)
        look(15 * number)
        follow_caps(NOON)
    assert asked(account) == ["stop", "resume"]


def test_a_cap_that_is_lifted_resumes_nobody_who_is_suspended() -> None:
    account, budget = capped_account()
    follow_caps(NOON)
    Customer.objects.create(
        account=account, standing=Customer.Standing.SUSPENDED, standing_since=NOON
    )
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    read(account, 15)
    look(15)
    follow_caps(NOON)
    assert asked(account) == ["stop"]
    Customer.objects.update(standing=Customer.Standing.ACTIVE)
    follow_caps(NOON)
    assert asked(account) == ["stop", "resume"]


def test_a_suspension_that_ends_resumes_nobody_who_is_capped(stripe: LocalStripe) -> None:
    debtor = Debtor(stripe)
    dun(days(15))
    assert asked(debtor.account) == ["stop"]
    budget = budget_of(debtor.account, hard_cap=True)
    use(debtor.account, 120, 24 * 24)
    services.look_at_caps(days(15))
    assert BudgetCap.objects.filter(lifted_at=None).count() == 1
    follow_caps(days(15))
    services.mark_paid(debtor.invoice.pk, because=services.Because("test"), now=days(16))
    dun(days(16))
    collect(days(16))
    assert debtor.standing == Customer.Standing.ACTIVE
    assert asked(debtor.account) == ["stop"]
    resumed = MailMessage.objects.filter(kind=MailMessage.Kind.ACCOUNT_RESUMED)
    assert not resumed.exists()
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    services.tell_reached_budgets(days(17))
    follow_caps(days(17))
    assert asked(debtor.account) == ["stop", "resume"]


def test_a_cap_that_is_lifted_resumes_nobody_who_is_closed() -> None:
    account, budget = capped_account()
    follow_caps(NOON)
    AccountClosing.objects.create(account=account, asked_at=NOON)
    Budget.objects.filter(pk=budget.pk).update(hard_cap=False)
    read(account, 15)
    look(15)
    follow_caps(NOON)
    follow_cap(account.pk, now=NOON)
    assert asked(account) == ["stop"]
