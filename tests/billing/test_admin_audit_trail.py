from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from billing import services
from billing.models import Account, AuditEntry, AuditTrail, Plan
from billing.tasks import sweep_billing
from tests.billing import admin_pages
from tests.billing.admin_pages import act, page, press, text_of
from tests.billing.usage import NOON, bill, open_account, record_usage

pytestmark = pytest.mark.django_db

TEAM = {
    "name": "Team",
    "monthly_fee": "333",
    "annual_fee": "3588",
    "monthly_credits": "300",
    "credit_rollover_periods": "0",
    "trial_days": "0",
    "is_offered": "on",
}


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


def last_entry() -> tuple[str | None, str, object, object]:
    entry = AuditEntry.objects.select_related("actor").latest("id")
    actor = entry.actor.get_username() if entry.actor else None
    return actor, entry.reason, entry.before, entry.after


def change_team(client: Client, **said: str) -> None:
    plan = Plan.objects.get(code="team")
    assert client.post(page(Plan, plan.pk, "change"), {**TEAM, **said}).status_code == 302


def test_a_change_by_a_form_names_who_and_the_reason_they_gave(finance: Client) -> None:
    change_team(finance, change_reason="Prices of 2027")
    assert last_entry() == (
        "finance",
        "Prices of 2027",
        {"monthly_fee": Decimal("299.0000")},
        {"monthly_fee": Decimal("333.0000")},
    )


def test_a_form_asks_for_a_reason_only_of_who_may_change_it(finance: Client) -> None:
    at = page(Plan, Plan.objects.get(code="team").pk, "change")
    assert "change_reason" in text_of(finance.get(at))
    assert "change_reason" not in text_of(admin_pages.viewer().get(at))


def test_a_change_by_an_action_has_the_reason_that_the_question_asked_for(finance: Client) -> None:
    account = open_account()
    act(finance, Account, "park", account.pk, reason="Disputes its contract")
    actor, reason, before, after = last_entry()
    assert (actor, reason) == ("finance", "Disputes its contract")
    assert before == {"parked_at": None, "parked_reason": ""}
    assert isinstance(after, dict)
    assert after["parked_reason"] == "Disputes its contract"


def test_a_question_without_a_reason_leaves_what_was_said_yes_to(finance: Client) -> None:
    account = open_account()
    press(finance, account, "set_top_up", threshold="10", amount="50")
    assert last_entry()[:2] == ("finance", "Save")


def test_a_transition_by_a_person_is_in_the_trail(finance: Client) -> None:
    account = open_account()
    record_usage(account.pk, cpu_s=5_000_000)
    invoice = bill(account)
    press(finance, invoice, "write_off", reason="Out of business")
    shown = AuditTrail.objects.get(table_name="billing_invoice")
    assert (shown.actor and shown.actor.username, shown.reason) == ("finance", "Out of business")
    assert (shown.before, shown.after) == ({"status": "pending"}, {"status": "uncollectible"})


@pytest.mark.django_db(transaction=True)
def test_what_a_task_changes_after_a_request_is_the_systems(finance: Client) -> None:
    account = open_account()
    act(finance, Account, "park", account.pk, reason="Disputes its contract")
    assert last_entry()[0] == "finance"
    act(finance, Account, "unpark", account.pk)
    sweep_billing()
    services.park_account(account.pk, reason="Broken", now=NOON)
    assert last_entry()[:2] == (None, "")


def test_the_page_tells_who_when_what_and_why_and_can_be_searched(finance: Client) -> None:
    account = open_account()
    change_team(finance, change_reason="<b>Prices</b> of 2027")
    text = text_of(finance.get(page(AuditTrail)))
    assert "monthly_fee: 299.0000 → 333.0000" in text
    assert "&lt;b&gt;Prices&lt;/b&gt; of 2027" in text
    assert f"/admin/billing/account/{account.pk}/change/" in text
    found = text_of(finance.get(page(AuditTrail) + "?q=2027"))
    assert "monthly_fee" in found
    assert str(account.pk) not in found
    by_system = text_of(finance.get(page(AuditTrail) + "?table_name=billing_account&actor=system"))
    assert "monthly_fee" not in by_system
    assert str(account.pk) in by_system
    one = AuditTrail.objects.filter(table_name="billing_plan")[0]
    assert "2027" in text_of(finance.get(page(AuditTrail, one.pk, "change")))


def test_the_page_names_who_came_into_which_group(finance: Client) -> None:
    user = User.objects.create_user("bob", is_staff=True)
    user.groups.add(Group.objects.create(name="Clerks"))
    text = text_of(finance.get(page(AuditTrail) + "?table_name=auth_user_groups"))
    assert f"user_id: bob ({user.pk})" in text
    assert "group_id: Clerks" in text


def test_nobody_changes_the_trail_by_its_page(finance: Client) -> None:
    change_team(finance)
    one = AuditTrail.objects.filter(table_name="billing_plan")[0]
    for rest in (("add",), (one.pk, "change"), (one.pk, "delete")):
        assert finance.post(page(AuditTrail, *rest), {"reason": "x"}).status_code == 403
