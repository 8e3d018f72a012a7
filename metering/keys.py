"""Metering keys: what a runtime shows to send samples, or to have a last reading taken."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.db import transaction

from metering.bearer_keys import check_overlap, find_key, new_key, revoke_keys
from metering.log_lines import log_committed
from metering.models import AccountRegistration, Host, MeteringKey
from metering.services import PUSHED, register_host

logger = logging.getLogger(__name__)

KEY_START = "sbx_meter_"
LONGEST_NAME = 100
LONGEST_HOST_NAME = 64

Scope = MeteringKey.Scope


class KeyRefusedError(ValueError):
    """The key cannot be issued like this; the message names the field and the way out."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


@dataclass(frozen=True, slots=True)
class IssuedMeteringKey:
    """A new key and its row. `key` exists nowhere else: show it now or never."""

    row: MeteringKey
    key: str


@transaction.atomic
def issue_metering_key(
    *,
    name: str,
    host_name: str,
    scopes: Collection[str],
    account_id: UUID | None = None,
    now: datetime,
) -> IssuedMeteringKey:
    """Make a key for the sample API. Each call makes another.

    A host of the name is made if there is none: one whose samples are sent. With an account,
    the key speaks of that account's sandboxes only. Raises KeyRefusedError.
    """
    check_metering_key(name=name, host_name=host_name, scopes=scopes, account_id=account_id)
    host = Host.objects.filter(name=host_name).first()
    if host is None:
        host = register_host(host_id=uuid4(), name=host_name, endpoint=PUSHED, now=now)
        Host.objects.filter(pk=host.pk).update(source="api")
    made = new_key(KEY_START)
    row = MeteringKey.objects.create(
        host=host,
        account_id=account_id,
        name=name,
        scopes=sorted(set(scopes)),
        prefix=made.prefix,
        key_hash=made.key_hash,
        created_at=now,
    )
    log_committed(logger, "metering key made", metering_key_id=row.pk, host=host.name)
    return IssuedMeteringKey(row=row, key=made.key)


def check_metering_key(
    *, name: str, host_name: str, scopes: Collection[str], account_id: UUID | None
) -> None:
    """Raise KeyRefusedError when a key could not be issued like this."""
    for field, text, longest in (
        ("name", name, LONGEST_NAME),
        ("host", host_name, LONGEST_HOST_NAME),
    ):
        if not (text.strip() and text.isprintable() and len(text) <= longest):
            raise KeyRefusedError(field, f"Give it 1 to {longest} printable characters.")
    if not scopes or not set(scopes) <= set(Scope.values):
        raise KeyRefusedError("scopes", f"Give it one or more of {', '.join(Scope.values)}.")
    if account_id and not AccountRegistration.objects.filter(pk=account_id).exists():
        raise KeyRefusedError("account", f"{account_id} is no account here. Open it first.")
    host = Host.objects.filter(name=host_name).first()
    if host and Scope.SAMPLES in scopes and not host.endpoint.startswith(PUSHED):
        raise KeyRefusedError(
            "host",
            f"{host_name} is read at {host.endpoint}, and what was sent as well would bill twice. "
            "Take a host of another name for what is sent.",
        )


def authenticate_metering_key(key: str, *, now: datetime) -> MeteringKey | None:
    """Return the row of a key that is known and not revoked, else None; note its use."""
    return find_key(MeteringKey.objects.select_related("host", "account"), key, now=now)


def revoke_metering_key(metering_key_id: int, *, now: datetime) -> None:
    """Refuse the key from now on. Safe to repeat: the first time stays."""
    if revoke_keys(MeteringKey.objects.filter(pk=metering_key_id), now=now):
        log_committed(logger, "metering key revoked", metering_key_id=metering_key_id)


@transaction.atomic
def rotate_metering_key(
    metering_key_id: int, *, overlap: timedelta, now: datetime
) -> IssuedMeteringKey:
    """Make a key that may do the same, and refuse the old one after `overlap`.

    Each call makes another. A key that is rotated already is refused then. Raises
    KeyRefusedError.
    """
    try:
        check_overlap(overlap)
    except ValueError as error:
        raise KeyRefusedError("overlap", str(error).removeprefix("overlap: ")) from None
    keys = MeteringKey.objects.select_for_update(of=("self",)).select_related("host")
    old = keys.filter(pk=metering_key_id, revoked_at__isnull=True).first()
    if old is None:
        raise KeyRefusedError("key", f"{metering_key_id} is no metering key that works on.")
    issued = issue_metering_key(
        name=old.name,
        host_name=old.host.name,
        scopes=old.scopes,
        account_id=old.account_id,
        now=now,
    )
    MeteringKey.objects.filter(pk=old.pk).update(revoked_at=now + overlap)
    return issued
