"""Each role on each page of the admin: what it sees and what it may do are what the table says.

Pages, buttons and actions come from the admin's registry, so that a page that is added later is
looked at too: until the table below says otherwise, nobody but a superuser may do anything there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Model
from django.http import HttpRequest
from django.test import Client, RequestFactory

from soulbox.staff.roles import READ, WRITE, Role, UnknownRightError, make_groups

pytestmark = pytest.mark.django_db

MANAGER, FINANCE, SUPPORT, OPERATOR = (
    Role.FINANCE_MANAGER,
    Role.FINANCE,
    Role.SUPPORT,
    Role.OPERATOR,
)
MONEY = {FINANCE, MANAGER}
METERING = {OPERATOR}

# Who may do what, by page: "add" and "change" are its forms, the others its buttons and actions.
# Told apart from the table of rights on purpose: this is what comes out.
DONE_BY: dict[str, dict[str, set[Role]]] = {
    "billing.account": {
        "export": set(Role),
        "import": MONEY,
        "add": MONEY,
        "change": MONEY,
        "preview": set(Role),
        "change_cycle": MONEY,
        "set_top_up": MONEY,
        "use_credit": MONEY,
        "draft_current_period": MONEY,
        "issue_api_key": {*MONEY, OPERATOR},
        "park": {MANAGER, OPERATOR},
        "unpark": {MANAGER, OPERATOR},
    },
    "billing.apikey": {"revoke": {*MONEY, OPERATOR}},
    "billing.budget": {"add": MONEY, "change": MONEY},
    "billing.delivery": {
        "send_again": {*MONEY, OPERATOR},
        "send_chosen_again": {*MONEY, OPERATOR},
    },
    "billing.event": {
        "send_again": {*MONEY, OPERATOR},
        "send_chosen_again": {*MONEY, OPERATOR},
    },
    "billing.invitation": {"withdraw": MONEY, "withdraw_chosen": MONEY},
    "billing.mailmessage": {"send_again": MONEY, "send_chosen_again": MONEY},
    "billing.creditgrant": {
        "export": set(Role),
        "add": MONEY,
        "revoke": MONEY,
        "revoke_chosen": MONEY,
        "grant_from_file": MONEY,
    },
    "billing.correction": {"approve": {MANAGER}, "reject": {MANAGER}},
    "billing.creditentry": {"export": set(Role)},
    "billing.discountrule": {"export": set(Role), "import": MONEY, "add": MONEY, "change": MONEY},
    "billing.invoice": {
        "export": set(Role),
        "draft_again": MONEY,
        "finalise": MONEY,
        "accept_amount": MONEY,
        "send": MONEY,
        "credit": MONEY,
        "re_rate": MONEY,
        "record_payment": MONEY,
        "retry_payment": MONEY,
        "collect_anew": MONEY,
        "write_off": {MANAGER},
        "void": {MANAGER},
        "issue_again": {MANAGER},
    },
    "billing.plan": {"export": set(Role), "add": MONEY, "change": MONEY},
    "billing.price": {
        "export": set(Role),
        "import": MONEY,
        "add": MONEY,
        "change": MONEY,
        "delete": MONEY,
    },
    "billing.pricebook": {
        "add": MONEY,
        "change": MONEY,
        "start_version": MONEY,
        "copy_as_own": MONEY,
    },
    "billing.pricebookversion": {"add": MONEY, "change": MONEY, "add_price": MONEY},
    "billing.subscription": {
        "export": set(Role),
        "add": MONEY,
        "cancel": MONEY,
        "cancel_now": MONEY,
        "resume": MONEY,
        "change_plan": MONEY,
        "cancel_chosen": MONEY,
        "cancel_chosen_now": MONEY,
        "resume_chosen": MONEY,
        "change_chosen": MONEY,
    },
    "billing.topup": {
        "add": MONEY,
        "money_is_here": MONEY,
        "give_up": MONEY,
        "grant_chosen": MONEY,
        "give_up_chosen": MONEY,
    },
    "billing.webhookendpoint": {
        "disable": {*MONEY, OPERATOR},
        "enable": {*MONEY, OPERATOR},
        "disable_chosen": {*MONEY, OPERATOR},
        "enable_chosen": {*MONEY, OPERATOR},
    },
    "metering.host": {"change": METERING},
    "payments.collection": {"collect_anew": MONEY},
    "payments.customer": {"bring_up_to_date": {*MONEY, OPERATOR}},
    "payments.difference": {"settle": MONEY},
    "payments.dunningcase": {
        "retry_now": MONEY,
        "record_payment": MONEY,
        "write_off": {MANAGER},
    },
    "payments.dunningstep": {"add": {MANAGER}, "change": {MANAGER}, "delete": {MANAGER}},
    "payments.payment": {"add": MONEY, "give_back": MONEY},
    "payments.reconciliation": {"compare_now": {MANAGER, OPERATOR}},
    "payments.refund": {
        "approve": {MANAGER},
        "reject": {MANAGER},
        "mark_done": MONEY,
        "take_credit": MONEY,
    },
    "payments.webhookevent": {
        "apply_again": {MANAGER, OPERATOR},
        "apply_chosen_again": {MANAGER, OPERATOR},
    },
    "metering.meteringkey": {"add": METERING, "revoke": METERING},
    "metering.sandbox": {"change": METERING},
}
NO_ROW = "00000000-0000-4000-8000-000000000000"
PAGES: dict[str, admin.ModelAdmin[Any]] = {
    model._meta.label_lower: page for model, page in admin.site._registry.items()
}


def client_of(role: Role) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(staff(role))
    return client


def staff(role: Role) -> User:
    user, made = User.objects.get_or_create(username=role.value, defaults={"is_staff": True})
    if made:
        user.groups.add(Group.objects.get(name=role.value))
    return user


def asked_by(role: Role) -> HttpRequest:
    request = RequestFactory().get("/admin/")
    request.user = User.objects.get(pk=staff(role).pk)
    return request


def address(label: str, *rest: str) -> str:
    return "/admin/" + "/".join([*label.split("."), *rest]) + "/"


def buttons(page: admin.ModelAdmin[Any]) -> list[str]:
    """Return the names of a page's buttons, wherever unfold shows them."""
    listed: list[Any] = []
    for where in ("actions_list", "actions_row", "actions_detail", "actions_submit_line"):
        listed += getattr(page, where, None) or ()
    return [
        name
        for entry in listed
        for name in (entry["items"] if isinstance(entry, dict) else [entry])
    ]


def files(page: admin.ModelAdmin[Any]) -> list[str]:
    """Return whether a page takes or gives files, by the names of django-import-export."""
    return [name for name in ("export", "import") if hasattr(page, f"has_{name}_permission")]


def place(page: admin.ModelAdmin[Any], name: str, row: str) -> str:
    """Return where a form or a button is: of the list itself, or of a row."""
    label = page.opts.label_lower
    of_list = {
        "add",
        "export",
        "import",
        "process_import",
        *(getattr(page, "actions_list", ()) or ()),
    }
    return address(label, name) if name in of_list else address(label, row, name)


def actions(page: admin.ModelAdmin[Any]) -> list[str]:
    superuser = RequestFactory().get("/admin/")
    superuser.user = User(is_superuser=True, is_active=True)
    return list(page.get_actions(superuser))


@contextmanager
def nothing_written() -> Iterator[None]:
    """Let a write that a request tries fail the test, whatever the answer looks like."""
    written: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if sql.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")) and not any(
            own in sql for own in ("django_session", "last_login")
        ):
            written.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield
    assert not written


@pytest.mark.parametrize("label", PAGES)
@pytest.mark.parametrize("role", Role)
def test_the_page_shows_a_role_what_it_may_do(role: Role, label: str) -> None:
    page, request = PAGES[label], asked_by(role)
    may = {name for name, roles in DONE_BY.get(label, {}).items() if role in roles}
    shown = set(page.get_actions(request))
    shown |= {
        name
        for name in buttons(page)
        if all(
            getattr(page, f"has_{right}_permission")(request)
            for right in getattr(page, name).allowed_permissions
        )
    }
    shown |= {name for name in files(page) if getattr(page, f"has_{name}_permission")(request)}
    if page.has_add_permission(request):
        shown.add("add")
    if page.has_change_permission(request):
        shown.add("change")
    # Whether a row may be deleted is asked of the row.
    assert shown == may - {"delete"}
    sees = PAGES[label].opts.app_label in READ or (label == "auth.user" and role in MONEY)
    assert page.has_view_permission(request) == sees


@pytest.mark.parametrize("role", Role)
def test_a_post_without_the_right_is_refused_and_writes_nothing(
    role: Role, rows: dict[str, Model]
) -> None:
    client = client_of(role)
    for label, page in PAGES.items():
        may = {name for name, roles in DONE_BY.get(label, {}).items() if role in roles}
        row = str(rows[label].pk) if label in rows else NO_ROW
        with nothing_written():
            for form in {"add", "change", "delete"} - may:
                at = place(page, form, row)
                # Where there is no such row, that is said before the right is asked for.
                refusals = {403} if form == "add" or label in rows else {302, 403, 404}
                assert client.post(at, {"post": "yes"}).status_code in refusals, at
            taken = {"process_import"} if "import" in {*files(page)} - may else set()
            for name in ({*buttons(page), *files(page)} - may) | taken:
                at = place(page, name, row)
                said = {"answered": "1", "reason": "x"}
                assert client.post(at, said).status_code == 403, at
            for name in set(actions(page)) - may:
                said = {"action": name, "answered": "1", "reason": "x", "post": "yes"}
                client.post(address(label), {**said, ACTION_CHECKBOX_NAME: [row]}, follow=True)


@pytest.mark.parametrize("role", Role)
def test_what_a_role_may_press_is_not_refused_it(role: Role, rows: dict[str, Model]) -> None:
    client = client_of(role)
    # Else something that nobody can try would count as tried.
    assert DONE_BY.keys() <= rows.keys()
    for label, done_by in DONE_BY.items():
        for name in (name for name, roles in done_by.items() if role in roles):
            row = str(rows[label].pk)
            if name in actions(PAGES[label]):
                continue
            at = place(PAGES[label], name, row)
            assert client.get(at).status_code in {200, 302}, at


@pytest.mark.parametrize("label", PAGES)
def test_every_button_asks_a_right(label: str) -> None:
    page = PAGES[label]
    for name in buttons(page):
        assert getattr(page, name).allowed_permissions, f"{label} {name}"


def test_support_changes_nothing_by_any_right() -> None:
    rights = Permission.objects.filter(group__name=Role.SUPPORT)
    assert rights.exists()
    assert not rights.exclude(codename__startswith="view_").exists()


def test_no_role_gives_rights() -> None:
    for role, rights in WRITE.items():
        given = {right for right in rights if right.startswith("auth.")}
        assert given <= {"auth.view_user"}, role


def test_a_second_time_changes_nothing_and_puts_right_what_was_changed_by_hand() -> None:
    group = Group.objects.get(name=Role.SUPPORT)
    before = set(group.permissions.values_list("pk", flat=True))
    group.permissions.add(Permission.objects.get(codename="void_invoice"))
    group.permissions.remove(Permission.objects.get(codename="view_invoice"))
    own = Group.objects.create(name="our own")
    own.permissions.add(Permission.objects.get(codename="void_invoice"))
    make_groups("default")
    assert set(group.permissions.values_list("pk", flat=True)) == before
    assert own.permissions.count() == 1
    with nothing_written():
        make_groups("default")


def test_a_right_that_no_table_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRITE, Role.SUPPORT, frozenset({"billing.print_money"}))
    with pytest.raises(UnknownRightError, match=r"support names billing\.print_money"):
        make_groups("default")


def test_a_support_page_shows_no_button(rows: dict[str, Model]) -> None:
    client = client_of(Role.SUPPORT)
    for label, row in rows.items():
        text = client.get(address(label, str(row.pk), "change")).content.decode()
        assert str(row) in text or str(row.pk) in text, label
        assert "_save" not in text, label
        for name in set(buttons(PAGES[label])) - {"preview"}:
            assert f"/{name}/" not in text, f"{label} {name}"
