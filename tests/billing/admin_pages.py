"""What the tests of the admin's pages share: who looks, where pages are, and what is posted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client

NO_ROWS = {"TOTAL_FORMS": "0", "INITIAL_FORMS": "0"}
ANSWERED = {"answered": "1"}


def finance() -> Client:
    """Someone who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("finance"))
    return client


def viewer() -> Client:
    """Someone who may look at everything, and no more."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


def page(model: type[Model], *rest: object) -> str:
    """Return the address of a table's page."""
    meta = model._meta
    return "/admin/" + "/".join([meta.app_label, str(meta.model_name), *map(str, rest)]) + "/"


def act(client: Client, model: type[Model], action: str, *rows: object, **said: str) -> str:
    """Run a list's action on rows, answering what it asks; return the page that comes after."""
    chosen = {"action": action, ACTION_CHECKBOX_NAME: [str(row) for row in rows]}
    response = client.post(page(model), {**chosen, **ANSWERED, **said}, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def press(client: Client, row: Model, button: str, **said: str) -> HttpResponse:
    """Press a button above a row's page and answer what it asks."""
    return client.post(page(type(row), row.pk, button), {**ANSWERED, **said}, follow=True)  # type: ignore[return-value]


def text_of(response: object) -> str:
    """Return what a page says, with plain spaces and quotes."""
    content: str = response.content.decode()  # type: ignore[attr-defined]
    return content.replace("\N{NO-BREAK SPACE}", " ").replace("&#x27;", "'")


def moment(name: str, at: datetime) -> Mapping[str, str]:
    """Return a moment as the page's two fields have it."""
    return {f"{name}_0": f"{at:%Y-%m-%d}", f"{name}_1": f"{at:%H:%M:%S}"}


def formset(prefix: str, *rows: Mapping[str, str]) -> Mapping[str, str]:
    """Return new rows inside another's page, as a form has them."""
    counts = {f"{prefix}-TOTAL_FORMS": str(len(rows)), f"{prefix}-INITIAL_FORMS": "0"}
    fields = {
        f"{prefix}-{at}-{name}": value for at, row in enumerate(rows) for name, value in row.items()
    }
    return counts | fields
