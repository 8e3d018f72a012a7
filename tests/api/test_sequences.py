"""Calls operations one after the other, each with what the ones before it answered."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    ensure_resource_availability,
    ignored_auth,
    negative_data_rejection,
    unsupported_method,
    use_after_free,
)

from tests.api.calling import Api
from tests.api.test_access import Tenant
from tests.api.test_conformance import CHECKS, EXAMPLES, _one_connection, document, rich
from tests.billing.usage import open_account

# Fixtures that this test shares.
__all__ = ["_one_connection", "document", "rich"]

pytestmark = pytest.mark.django_db

OF_SEQUENCES = [
    ensure_resource_availability,
    ignored_auth,
    negative_data_rejection,
    unsupported_method,
    use_after_free,
]


def test_what_is_made_is_there_until_it_is_removed_and_for_nobody_else(
    document: Any, rich: Tenant
) -> None:
    theirs, other = Api.by_key(rich.account.pk), Api.by_key(open_account("Eve").pk)

    class Sequence(document.as_state_machine()):  # type: ignore[misc]  # made at run time
        """A few calls by a tenant, each repeated by another; nothing of it stays."""

        def setup(self) -> None:
            self.undone = transaction.atomic()
            # As a test case's own: what has to commit by itself may be inside it.
            vars(self.undone)["_from_testcase"] = True
            self.undone.__enter__()

        def teardown(self) -> None:
            transaction.set_rollback(True)
            self.undone.__exit__(None, None, None)

        def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
            del case
            return {"headers": theirs.headers}

        def validate_response(
            self, response: Any, case: schemathesis.Case[Any], **options: Any
        ) -> None:
            case.validate_response(
                response,
                checks=[*CHECKS, *OF_SEQUENCES],
                headers=theirs.headers,
                transport_kwargs=options,
                recorder=self.recorder,
            )
            again = case.call_and_validate(headers=other.headers, checks=CHECKS)
            for secret in (str(rich.account.pk), str(rich.invoice.number)):
                assert secret not in again.text

    # Else nothing followed from anything.
    follows = {name for name, one in Sequence._transitions.operations.items() if one.incoming}
    assert {f"{method} /api/v1/budgets/{{id}}" for method in ("GET", "PATCH", "DELETE")} <= follows
    Sequence.run(
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
    )
