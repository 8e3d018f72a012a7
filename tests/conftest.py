from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from urllib.parse import quote

import hypothesis
import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.test import TransactionTestCase
from pytest_django.plugin import DjangoDbBlocker

from billing.curves import curve_of
from billing.rating import Prices
from soulbox.services import start_services

# Rows that migrations make; a test that commits leaves them as they are.
SEEDED_TABLES = {
    "django_migrations",
    "django_content_type",
    "auth_permission",
    "auth_group",
    "auth_group_permissions",
    "billing_plan",
    "billing_pricebook",
    "billing_pricebookversion",
    "billing_price",
    "billing_discountrule",
    "payments_dunningstep",
}
# What deletes the rows that tests add where others stay; what names accounts before these.
ADDED = {
    "billing_price": """
        DELETE FROM billing_price USING billing_pricebookversion AS version
        JOIN billing_pricebook AS book ON book.id = version.book_id
        WHERE version_id = version.id AND account_id IS NOT NULL
    """,
    "billing_pricebookversion": """
        DELETE FROM billing_pricebookversion USING billing_pricebook AS book
        WHERE book_id = book.id AND account_id IS NOT NULL
    """,
    "billing_pricebook": "DELETE FROM billing_pricebook WHERE account_id IS NOT NULL",
    "billing_discountrule": "DELETE FROM billing_discountrule WHERE name NOT LIKE 'Volume %'",
    "billing_account": "DELETE FROM billing_account",
}
NEVER_EMPTIED = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'is_not_emptied'"

# Few examples keep the pure core's tests under two seconds; `make properties` runs many more.
hypothesis.settings.register_profile("quick", max_examples=20, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
# The same examples for each mutant, or one run would kill what the next one lets live; a failure is
# enough, nobody reads it, so it is not made small.
hypothesis.settings.register_profile(
    "mutants",
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pure", action="store_true", help="leave out what needs the services, and start none"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--pure"):
        start_services()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--pure"):
        return
    impure = [item for item in items if _needs_services(item)]
    left_out = set(impure)
    # Examples first: a mutant ends with the first test that fails, and properties take longest.
    items[:] = sorted((item for item in items if item not in left_out), key=_is_property)
    config.hook.pytest_deselected(items=impure)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.config.getoption("--pure"):
        return
    # What one test has worked out would hide that the next one needs it too.
    curve_of.cache_clear()
    for name, module in sys.modules.items():
        if name.startswith("tests.billing"):
            for value in vars(module).values():
                if isinstance(value, Prices):
                    value._rates.clear()


def _is_property(item: pytest.Item) -> bool:
    return hypothesis.is_hypothesis_test(getattr(item, "obj", None))


def _needs_services(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or not {
        "db",
        "transactional_db",
        "service_environment",
    }.isdisjoint(fixtures)


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


def wipe_committed_rows() -> None:
    """Empty every table but the seeded ones, as the owner, past Django.

    The application's role may not truncate, and Django keeps a test from connections that it
    did not ask for.
    """
    owner = connections["owner"]
    tables = owner.introspection.django_table_names(include_views=False)
    names = ", ".join(sorted(set(tables) - SEEDED_TABLES - {"billing_account"}))
    with psycopg.connect(**owner.get_connection_params()) as connection:
        # Past the triggers that keep them from being emptied: only their owner may do that.
        kept = [table for (table,) in connection.execute(NEVER_EMPTIED)]
        for table in kept:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER is_not_emptied")
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
        for table in kept:
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER is_not_emptied")
        # Seeded tables have columns that name accounts, so that one cannot be truncated. The audit
        # trail would tell the next test of it.
        for table, delete in ADDED.items():
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            connection.execute(delete)
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@pytest.fixture(autouse=True, scope="session")
def _committed_rows_are_wiped_by_the_owner() -> None:
    def wipe(_case: TransactionTestCase) -> None:
        wipe_committed_rows()

    # Django's own hook, which its type stubs leave out.
    TransactionTestCase._fixture_teardown = wipe  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def service_environment(django_db_setup: None) -> dict[str, str]:
    """The environment in which another process uses this run's database and Redis."""
    del django_db_setup

    def url(alias: str) -> str:
        database = connections[alias].settings_dict
        name = connections["default"].settings_dict["NAME"]
        return f"postgres://{database['USER']}@{quote(database['HOST'], safe='')}/{name}"

    return {
        "DJANGO_SETTINGS_MODULE": "soulbox.settings",
        "DATABASE_URL": url("default"),
        "DATABASE_OWNER_URL": url("owner"),
        "REDIS_URL": settings.REDIS_URL,
        "STREAM_REDIS_URL": settings.STREAM_REDIS_URL,
        "CACHE_REDIS_URL": settings.CACHE_REDIS_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "HTTPS_ONLY": "no",
    }
