"""Whatever is written, a field that is not to be said is refused by its name."""

from __future__ import annotations

import pytest

from billing.models import Membership
from tests.api.calling import Api
from tests.api.test_access import NOT_OF_AN_ACCOUNT, ROWS, Tenant, operations

pytestmark = pytest.mark.django_db

# Nobody's, the server's own, and what would be another's.
SAID = {"no_such_field": 1, "id": 7, "account": "x", "created_at": "2026-01-01T00:00:00Z"}
WITHOUT_A_BODY = {
    "POST payment-methods/{id}/default",
    "POST sandboxes/{sandbox_id}/collect",
    "POST subscription/resume",
    "POST webhook-endpoints/{id}/ping",
    "POST webhook-endpoints/{id}/rotate",
}
WRITES = [
    operation
    for operation in ROWS
    if operation.split()[0] in {"POST", "PUT", "PATCH"} and operation not in WITHOUT_A_BODY
]


def test_each_operation_with_a_body_is_looked_at() -> None:
    with_one = {name for name, operation in operations().items() if "requestBody" in operation}
    # Samples have tests of their own fields (tests/metering/test_bad_samples.py).
    assert with_one - NOT_OF_AN_ACCOUNT == set(WRITES)


@pytest.mark.parametrize("operation", WRITES)
def test_what_is_not_to_be_said_is_refused(operation: str) -> None:
    tenant = Tenant()
    api = Api.by_member(tenant.account, Membership.Role.OWNER)
    method, template = operation.split(" ")
    answer = api.send(method, tenant.path(template), SAID)
    assert answer.status_code == 400, answer.content[:300]
    assert "no_such_field" in answer.content.decode(), answer.content[:300]
