"""Calls every operation of the document in ways it allows and others, with two tenants' keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.calling import Api
from tests.api.test_access import PREFIX, ROWS, Tenant
from tests.billing.usage import open_account

pytestmark = pytest.mark.django_db

EXAMPLES = int(os.environ.get("API_EXAMPLES", "5"))
CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def _one_connection() -> Iterator[None]:
    """Keep a test's connection open between requests, as Django's own test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def document(_one_connection: None) -> Any:
    schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", WSGIHandler())
    # Runtimes call it with keys of their own, as tests of metering do.
    return schema.exclude(path_regex="^/api/v1/metering/")


@pytest.fixture
def rich() -> Tenant:
    """An account with one of everything."""
    return Tenant()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("operation", sorted(ROWS))
def test_an_operation_answers_as_the_document_says(
    document: Any, rich: Tenant, operation: str, mode: GenerationMode
) -> None:
    """With what the document allows, and with what it does not; of what is there, and is not."""
    method, path = operation.split(" ")
    named = {name: str(value) for name, value in rich.names_of(path).items()}
    theirs, other = Api.by_key(rich.account.pk), Api.by_key(open_account("Eve").pk)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(document[f"{PREFIX}{path}"][method].as_strategy(generation_mode=mode))
    def answers_as_it_says(case: schemathesis.Case[Any]) -> None:
        for names in [case.path_parameters, named] if named else [{}]:
            case.path_parameters = names
            for api in (other, theirs):
                response = case.call_and_validate(headers=api.headers, checks=CHECKS)
                for secret in (str(rich.account.pk), str(rich.invoice.number)):
                    assert api is theirs or secret not in response.text
                # Stripe is not set up in these tests; nothing else is an excuse.
                assert response.status_code < 500 or response.json()["code"] == "provider_silent"

    answers_as_it_says()
