"""What single pages do beside what the matrix and the browser look at."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from pytest_django.fixtures import Settings

from billing.models import Account, ApiKey, Budget, Invitation, Membership, TopUp
from billing.queries import current_usage
from billing.services import Actor, authenticate_api_key, invite, look_at_caps
from billing.services.invitations import _token_of
from metering.summaries import summarise_usage
from soulbox.portal import mails, tasks
from soulbox.portal.days import cost_of_days
from tests.billing.usage import NOON, open_account, record_usage
from tests.portal.conftest import SetClock
from tests.portal.members import PASSWORD, add_member, member_of, words_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(set_clock: SetClock) -> Account:
    set_clock(NOON)
    return open_account("Ada Ltd")


@pytest.fixture
def _mailed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the portal's tasks run where they are asked for."""
    for task in (tasks.mail_password_reset, tasks.mail_sign_up):

        def run(args: tuple[str, ...], task: object = task, **_options: object) -> None:
            task.run(*args)  # type: ignore[attr-defined]  # Celery's own, of what it wraps

        monkeypatch.setattr(task, "apply_async", run)


def link_in_mail() -> str:
    """Return the path of the link in the newest mail."""
    found = re.search(r"http://testserver(\S+)", str(mail.outbox[-1].body))
    assert found
    return found[1]


def test_days_sum_to_what_each_meter_cost(account: Account) -> None:
    for back, cpu_s in ((0, 1_000_001), (1, 2_000_003), (3, 77_777)):
        record_usage(account.pk, NOON - timedelta(days=back), cpu_s=cpu_s, memory_gb_s=cpu_s // 3)
    # Today is not summarised yet: what is not in a summary was used today.
    days = [(NOON - timedelta(days=back)).date() for back in (1, 3)]
    summarise_usage(account.pk, days, now=NOON)
    current = current_usage(account.pk, now=NOON)
    costs = cost_of_days(account.pk, current, account.cycle.zone, now=NOON)
    assert sum((sum(costs.amounts[day]) for day in costs.days), Decimal(0)) == (
        current.cost.usage_fee.amount
    )
    assert costs.amounts[NOON.date()][0] == Decimal("12.00")
    assert not any(costs.amounts[(NOON - timedelta(days=2)).date()])


@pytest.mark.usefixtures("_mailed_at_once")
def test_signing_up_proves_the_address_first(
    client: Client, set_clock: SetClock, settings: Settings
) -> None:
    set_clock(NOON)
    settings.SIGN_UP = "open"
    assert client.post("/sign-up", {"email": "New@Example.com"}).status_code == 302
    assert not Account.objects.exists()
    path = link_in_mail()
    said = {"account_name": "New Ltd", "time_zone": "Europe/Berlin", "password": PASSWORD}
    weak = client.post(path, said | {"password": "password"})
    assert "too common" in words_of(weak)
    assert not User.objects.exists()
    assert client.post(path, said)["Location"] == "/"
    member = Membership.objects.get()
    assert (member.role, member.user.username) == (Membership.Role.OWNER, "new@example.com")
    assert (member.account.name, member.account.time_zone) == ("New Ltd", "Europe/Berlin")
    assert "New Ltd" in words_of(client.get("/"))
    # The link again makes nothing; nor does another mail, which says what there is.
    assert Client().post(path, said)["Location"] == "/sign-in"
    Client().post("/sign-up", {"email": "new@example.com"})
    assert mail.outbox[-1].subject == "You have an account at SoulBox"
    assert Account.objects.count() == 1


def test_a_link_of_another_day_or_text_signs_nobody_up(client: Client, settings: Settings) -> None:
    settings.SIGN_UP = "open"
    assert client.get("/sign-up/x").status_code == 410
    token = mails.sign_up_token("new@example.com")
    assert client.get(f"/sign-up/{token}").status_code == 200
    assert client.get(f"/sign-up/{token[:-1]}").status_code == 410


def test_sign_up_is_not_there_where_it_is_not_open(client: Client) -> None:
    token = mails.sign_up_token("new@example.com")
    for path in ("/sign-up", "/sign-up/mailed", f"/sign-up/{token}"):
        assert client.get(path).status_code == 404


@pytest.mark.usefixtures("_mailed_at_once")
def test_a_forgotten_password_is_chosen_anew_by_a_link(account: Account, client: Client) -> None:
    add_member(account, "ada")
    assert client.post("/password", {"email": "ADA@example.com"})["Location"] == "/password/mailed"
    page = client.get(link_in_mail(), follow=True)
    form_path = page.redirect_chain[-1][0]
    new = {"new_password1": "another horse battery", "new_password2": "another horse battery"}
    assert client.post(form_path, new)["Location"] == "/password/changed"
    assert client.login(username="ada", password="another horse battery")  # noqa: S106 - a test's own


@pytest.mark.usefixtures("_mailed_at_once")
def test_neither_strangers_nor_staff_are_mailed_and_the_page_says_the_same(client: Client) -> None:
    User.objects.create_superuser("finance", email="finance@example.com", password=PASSWORD)
    answers = [
        client.post("/password", {"email": address})
        for address in ("nobody@example.com", "finance@example.com")
    ]
    assert [answer["Location"] for answer in answers] == ["/password/mailed"] * 2
    assert mail.outbox == []


@pytest.mark.usefixtures("_mailed_at_once")
def test_a_mail_box_is_not_filled(account: Account, client: Client) -> None:
    add_member(account, "ada")
    for _ in range(6):
        assert client.post("/password", {"email": "ada@example.com"}).status_code == 302
    assert len(mail.outbox) == 4


def test_somebody_new_accepts_an_invitation_with_a_password(
    account: Account, client: Client
) -> None:
    path = invitation_of(account, "bea@example.com")
    assert "bea@example.com is invited" in words_of(client.get(path))
    assert client.post(path, {"password": PASSWORD})["Location"] == "/"
    assert Membership.objects.get(user__email="bea@example.com").role == "billing"
    assert "Ada Ltd" in words_of(client.get("/"))
    assert Client().get(path).status_code == 410


def test_an_invitation_is_for_its_address_alone(account: Account) -> None:
    path = invitation_of(account, "bea@example.com")
    other = member_of(open_account("Other"))
    assert "whose address is another one" in words_of(other.get(path))
    assert "bea@example.com is invited" in words_of(other.post(path))
    assert Membership.objects.filter(account=account).count() == 0


def test_nobody_new_accepts_where_sign_up_is_off(
    account: Account, client: Client, settings: Settings
) -> None:
    settings.SIGN_UP = "off"
    path = invitation_of(account, "bea@example.com")
    assert client.post(path, {"password": PASSWORD})["Location"].startswith("/sign-in")
    assert not User.objects.filter(email="bea@example.com").exists()


def test_a_key_is_shown_once_and_a_form_makes_one(account: Account) -> None:
    client = member_of(account)
    said = {"name": "Script", "scopes": ["read"], "once": "form-1"}
    shown = words_of(client.post("/api-keys/make", said))
    key = re.search(r"sbx_(?:live|test)_[\w-]+", shown)
    assert key
    row = authenticate_api_key(key[0], now=NOON)
    assert row is not None
    assert (row.account_id, row.scopes) == (account.pk, ["read"])
    assert client.post("/api-keys/make", said)["Location"] == "/api-keys"
    assert key[0] not in words_of(client.get("/api-keys"))
    assert ApiKey.objects.count() == 1


def test_credit_is_asked_for_once_for_a_form(account: Account) -> None:
    client = member_of(account)
    for _ in range(2):
        client.post("/credits/buy", {"amount": "25", "once": "form-1"})
    assert [top_up.amount for top_up in TopUp.objects.all()] == [25]
    refused = words_of(client.post("/credits/buy", {"amount": "0.001", "once": "form-2"}))
    assert "Use whole cents" in refused
    assert 'value="form-2"' not in refused


def invitation_of(account: Account, address: str) -> str:
    """Invite an address, and return the path that the mail leads to."""
    owner = Actor(Membership.Role.OWNER)
    invite(account.pk, email=address, role=Membership.Role.BILLING, by=owner, now=NOON)
    return f"/invitations/{_token_of(Invitation.objects.get().pk)}"


def test_a_budget_is_kept_changed_removed_and_its_name_is_its_own(account: Account) -> None:
    client = member_of(account)
    said = {"name": "Month", "amount": "500", "thresholds": "50,100", "is_active": "on"}
    assert client.post("/budgets", said)["Location"] == "/budgets"
    assert "Another budget has this name." in words_of(client.post("/budgets", said))
    assert "Use an amount above 0." in words_of(
        client.post("/budgets", said | {"name": "B", "amount": "0"})
    )
    budget = Budget.objects.get()
    page = words_of(client.get(f"/budgets/{budget.pk}"))
    assert 'value="500.00"' in page
    change = {"name": "Month", "amount": "700", "thresholds": "80", "alert_amounts": "9.5,100"}
    client.post(f"/budgets/{budget.pk}", change | {"hard_cap": "on"})
    budget.refresh_from_db()
    assert (budget.amount, budget.thresholds, budget.is_active) == (700, [80], False)
    assert (budget.alert_amounts, budget.hard_cap) == ([Decimal("9.5"), 100], True)
    assert 'value="9.50,100.00"' in words_of(client.get(f"/budgets/{budget.pk}"))
    assert "80 %, 9.50 USD, 100.00 USD" in words_of(client.get("/budgets"))
    client.post(f"/budgets/{budget.pk}/remove")
    assert not Budget.objects.exists()


def test_a_hard_cap_that_is_reached_is_shown_and_lifted_by_raising_it(account: Account) -> None:
    client = member_of(account)
    said = {"name": "Month", "amount": "1", "thresholds": "100", "is_active": "on"}
    record_usage(account.pk, NOON, cpu_s=1_000_000)
    client.post("/budgets", said | {"hard_cap": "on"})
    look_at_caps(NOON)
    page = words_of(client.get("/budgets"))
    assert "Reached: sandboxes are stopped" in page
    assert "11.00 USD was used above it." in page
    budget = Budget.objects.get()
    client.post(f"/budgets/{budget.pk}", said | {"hard_cap": "on", "amount": "9999"})
    assert "On, hard cap" in words_of(client.get("/budgets"))


@pytest.mark.parametrize("path", ["/", "/sign-in", "/invoices/1", "/invitations/x"])
def test_no_page_lets_anything_inline_run(account: Account, path: str) -> None:
    answer = member_of(account).get(path)
    policy = dict(rule.split(" ", 1) for rule in answer["Content-Security-Policy"].split("; "))
    assert (policy["script-src"], policy["style-src"]) == ("'self'", "'self'")
    said = words_of(answer)
    # Data is no script, and is not run.
    scripts = re.findall(r"<script(?![^>]* src=)(?![^>]*application/json)[^>]*>", said)
    assert (scripts, re.findall(r"<style| style=| on[a-z]+=", said)) == ([], [])


def test_an_account_that_is_being_closed_takes_no_new_plan(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(closing_at=NOON, ends_at=NOON)
    client = member_of(account)
    for answer in (
        client.get("/plan/preview?plan=team&interval=monthly", follow=True),
        client.post("/plan/change", {"plan": "team", "interval": "monthly"}, follow=True),
    ):
        assert "The account is being closed." in words_of(answer)


def test_a_closed_account_is_only_read(account: Account) -> None:
    closed_at = datetime.now(UTC)
    Account.objects.filter(pk=account.pk).update(
        closing_at=closed_at, ends_at=closed_at, closed_at=closed_at
    )
    client = member_of(account)
    assert client.get("/invoices").status_code == 200
    assert client.post("/budgets", {"name": "Month"}).status_code == 403
