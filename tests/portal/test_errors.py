"""The pages that nobody means to see: they look as the others do, and need nothing to be shown."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client, RequestFactory

from soulbox.doors import server_error
from tests.portal.members import PASSWORD, words_of

NAME = {"username": "ada", "password": PASSWORD}


@pytest.mark.django_db
@pytest.mark.parametrize(("address", "back"), [("/nothing-here", "/"), ("/x/admin/", "/admin/")])
def test_an_address_that_leads_nowhere_leads_back(address: str, back: str) -> None:
    answer = Client().get(address)
    assert answer.status_code == 404
    assert "There is no such page" in words_of(answer)
    assert f'class="button" href="{back}"' in words_of(answer)


def test_an_error_of_ours_is_said_without_asking_the_database() -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError

    with connection.execute_wrapper(refuse):
        answer = server_error(RequestFactory().get("/plan"))
    assert answer.status_code == 500
    assert "Something went wrong" in words_of(answer)


@pytest.mark.django_db
def test_a_form_without_its_mark_is_refused_and_says_what_to_do() -> None:
    answer = Client(enforce_csrf_checks=True).post("/sign-in", NAME)
    assert answer.status_code == 403
    assert "Go back, reload the page" in words_of(answer)
    # Django's own page has a style that the policy would not let in.
    assert "<style" not in words_of(answer)
