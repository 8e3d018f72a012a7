from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.test import TransactionTestCase
from pytest_django.plugin import DjangoDbBlocker

from soulbox.services import start_services

# Rows that migrations make; a test that commits leaves them as they are.
SEEDED_TABLES = {
    "django_migrations",
    "django_content_type",
    "auth_permission",
    "billing_plan",
    "billing_pricebook",
    "billing_pricebookversion",
    "billing_price",
}


def pytest_configure() -> None:
    start_services()


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Make the test database as the owner; tests then use it as the application's role."""
    with django_db_blocker.unblock():
        owner, application = connections["owner"], connections["default"]
        name = owner.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        original_name = application.settings_dict["NAME"]
        application.close()
        application.settings_dict["NAME"] = name
    yield
    with django_db_blocker.unblock():
        application.close()
        application.settings_dict["NAME"] = original_name
        owner.creation.destroy_test_db(original_name, verbosity=0)


@pytest.fixture(autouse=True, scope="session")
def _committed_rows_are_wiped_by_the_owner() -> None:
    """The application's role may not truncate; Django's own wiping would be refused."""

    def wipe(_case: TransactionTestCase) -> None:
        connection = connections["owner"]
        tables = set(connection.introspection.table_names()) - SEEDED_TABLES
        with connection.cursor() as cursor:
            names = ", ".join(connection.ops.quote_name(table) for table in sorted(tables))
            cursor.execute(f"TRUNCATE {names} RESTART IDENTITY")

    # Django's own hook, which its type stubs leave out.
    TransactionTestCase._fixture_teardown = wipe  # type: ignore[attr-defined]


@pytest.fixture
def run_command() -> Any:
    return call_command
