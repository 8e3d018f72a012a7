"""A runtime that sends its samples, over the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from rest_framework.test import APIClient

from metering.aggregator import aggregate_host
from metering.keys import issue_metering_key
from metering.meters import Meter
from metering.models import Host
from metering.period import Period
from metering.queries import usage_totals
from metering.services import register_account

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
PATH = "/api/v1/metering/samples"
EVENTS = "application/cloudevents-batch+json"


def text_of(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Runtime:
    """One account's sandboxes on one push host, and the key that sends their samples."""

    def __init__(
        self, *, of_one_account: bool = False, scopes: tuple[str, ...] = ("samples",)
    ) -> None:
        self.account_id: UUID = self.open_account()
        issued = issue_metering_key(
            name="cluster",
            host_name=f"cluster-{uuid4()}",
            scopes=scopes,
            account_id=self.account_id if of_one_account else None,
            now=NOON - timedelta(days=1),
        )
        self.row, self.key = issued.row, issued.key
        self.host: Host = issued.row.host

    @staticmethod
    def open_account() -> UUID:
        account_id = uuid4()
        register_account(
            account_id=account_id, time_zone="UTC", registered_at=NOON - timedelta(days=1)
        )
        return account_id

    def sample(self, **fields: Any) -> dict[str, Any]:
        """A good sample but for what the test says; a field that is ... is left out."""
        sample = {
            "account_id": str(self.account_id),
            "sandbox_id": "sbx-1",
            "life": "pod-1/0",
            "started_at": text_of(NOON - 10 * MINUTE),
            "read_at": text_of(NOON - MINUTE),
            "cpu_ns": 9_000,
        }
        return {name: value for name, value in (sample | fields).items() if value is not ...}

    def post(self, body: Any, *, media_type: str = "application/json") -> Any:
        client = APIClient(headers={"Authorization": f"Bearer {self.key}"})
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        # The stubs of DRF say str, and Django takes bytes.
        return client.generic("POST", PATH, raw, content_type=media_type)  # type: ignore[arg-type]

    def send(self, *samples: dict[str, Any]) -> dict[str, Any]:
        answer = self.post({"samples": list(samples)})
        assert answer.status_code in {200, 422}, answer.content
        body: dict[str, Any] = answer.json()
        return body

    def collect(self, sandbox_id: str, account_id: object = None) -> Any:
        """Ask for a last reading at once."""
        client = APIClient(headers={"Authorization": f"Bearer {self.key}"})
        query = f"?account_id={account_id}" if account_id else ""
        return client.post(f"/api/v1/metering/sandboxes/{sandbox_id}/collect{query}")

    def aggregate(self, now: datetime = NOON + MINUTE) -> int:
        return aggregate_host(self.host.pk, now=now)

    def usage(self, account_id: UUID | None = None) -> dict[Meter, int]:
        day = Period(NOON - timedelta(days=1), NOON + timedelta(days=1))
        return usage_totals(account_id or self.account_id, day)
