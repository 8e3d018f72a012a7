"""What staff do about customers in a real browser: webhooks, invitations, hard caps, members."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from billing import services
from billing.models import (
    Budget,
    BudgetCap,
    Delivery,
    EventType,
    Invitation,
    Membership,
    WebhookEndpoint,
)
from billing.models.outgoing import WAITING
from soulbox.staff.roles import Role
from tests.billing.test_caps import capped_account
from tests.billing.usage import NOON, open_account
from tests.real.test_finance_desk import LATER, SitDown, browser, set_clock, sit_down

# Fixtures that these tests share with others.
__all__ = ["browser", "set_clock", "sit_down"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_an_operator_sends_events_again_and_switches_endpoints(sit_down: SitDown) -> None:
    account, other = open_account("Ada"), open_account("Bob")
    for one in (account, other):
        services.add_endpoint(one.pk, url=f"https://example.com/{one.name}", now=NOON)
        services.emit_event(one.pk, EventType.INVOICE_PAID, one.name, {"amount": "1.00"}, NOON)
    Delivery.objects.update(given_up_at=NOON, last_error="HTTP 500", response_status=500)
    with sit_down(Role.OPERATOR) as desk:
        desk.go("Deliveries")
        desk.sees("HTTP 500")
        # Of one account alone, found by its name.
        desk.page.get_by_text("Filters").first.click()
        desk.page.locator(".select2-selection").first.click()
        desk.page.locator(".select2-search__field").fill("Ada")
        desk.page.locator(".select2-results__option", has_text="Ada").click()
        desk.page.get_by_role("button", name="Apply Filters").click()
        expect(desk.row("example.com/Bob")).to_have_count(0)
        desk.row("example.com/Ada").get_by_role("link").first.click()
        desk.press("Send again")
        desk.sees("It is sent within a minute to https://example.com/Ada.")
        assert [each.event.account for each in Delivery.objects.filter(WAITING)] == [account]
        desk.go("Endpoints")
        desk.choose("Disable", "example.com/Ada")
        desk.page.locator("#content form button[type=submit]").last.click()
        desk.sees("Nothing is sent there any more.")
        assert WebhookEndpoint.objects.get(account=account).disabled_at == LATER
        desk.go("Invitations")
        expect(desk.page.locator("select[name=action]")).to_have_count(0)


def test_finance_lifts_a_cap_by_its_budget_and_withdraws_an_invitation(
    sit_down: SitDown,
) -> None:
    account, budget = capped_account()
    by = services.Actor(Membership.Role.OWNER)
    services.invite(
        account.pk, email="new@example.com", role=Membership.Role.VIEWER, by=by, now=LATER
    )
    with sit_down(Role.FINANCE) as desk:
        desk.go("Hard caps")
        desk.row("Sandboxes").get_by_role("link").first.click()
        desk.sees("Raise the budget above the latest cost")
        desk.page.locator("#content").get_by_role("link", name="Sandboxes").click()
        desk.page.get_by_label("Hard cap").uncheck()
        desk.page.get_by_role("button", name="Save", exact=True).click()
        desk.sees("was changed successfully")
        assert not Budget.objects.get(pk=budget.pk).hard_cap
        services.look_at_caps(LATER)
        assert BudgetCap.objects.get().lifted_at == LATER
        desk.go("Invitations")
        desk.row("new@example.com").get_by_role("link").first.click()
        desk.press("Withdraw")
        desk.sees("new@example.com is not invited any more.")
        assert Invitation.objects.get().withdrawn_at == LATER
        # The last owner stays, and the form says why.
        desk.open(f"/admin/billing/account/{account.pk}/change/")
        desk.page.locator("[name=memberships-0-role]").select_option("viewer")
        desk.page.get_by_role("button", name="Save", exact=True).click()
        desk.sees("The account needs an owner.")
        assert Membership.objects.get(account=account).role == "owner"
