"""Calls that change something at the provider: written down, made, and their answers kept."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing.money import Money
from payments.models import ProviderCall
from payments.provider import BrokenError, BusyError, NoAnswerError, ProviderError

KEY_LIFE = timedelta(hours=23)
"""Stripe may forget a key after 24 h; after that the same key would do the same thing again."""
REDACTED = "(not kept)"
_SECRETS = re.compile(r"secret|hosted_url|api_key", re.IGNORECASE)
# Keys, webhook secrets and client secrets, should a message of the provider's name one.
_SECRET_TEXTS = re.compile(r"\b(?:[sr]k_(?:live|test)_|whsec_)\w+|\b\w+_secret_\w+")
_OVER = (ProviderCall.Outcome.BROKEN, ProviderCall.Outcome.REFUSED)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Call:
    """What is to be asked of the provider, and for what.

    `key` names it for ever: the same thing is asked for under the same key.
    """

    key: str
    operation: str
    account_id: UUID
    asked: Mapping[str, Any] = field(default_factory=dict)
    collection_id: UUID | None = None
    attempt_id: int | None = None
    refund_id: UUID | None = None


def make_call(call: Call, ask: Callable[[str], Answer], *, now: datetime) -> Answer:
    """Ask the provider, under a key that was committed before; return its answer.

    Called again it uses the same key, so that the provider does it once. After the provider ended
    the request without doing it, or when it may have forgotten the key, it takes a new one: the
    caller has looked by then, and found that it was not done. Raises ProviderError.
    """
    row = _write_down(call, now=now)
    try:
        answer = ask(row.key)
    except BusyError as error:
        # It did nothing and kept nothing: the key is as good as new.
        _keep(row, ProviderCall.Outcome.OPEN, _error(error))
        raise
    except BrokenError as error:
        _keep(row, ProviderCall.Outcome.BROKEN, _error(error))
        raise
    except NoAnswerError as error:
        _keep(row, ProviderCall.Outcome.OPEN, _error(error))
        raise
    except ProviderError as error:
        _keep(row, ProviderCall.Outcome.REFUSED, _error(error))
        raise
    _keep(row, ProviderCall.Outcome.DONE, _told(answer))
    return answer


def last_call(key: str) -> ProviderCall | None:
    """Return the newest call of that name; None when it was never made."""
    return ProviderCall.objects.filter(key__in=_names(key)).order_by("-pk").first()


def may_be_done(key: str) -> bool:
    """Return whether the provider may have done it, though we have no answer that says so."""
    call = last_call(key)
    return call is not None and call.outcome != ProviderCall.Outcome.REFUSED


def is_repeatable(key: str, *, now: datetime) -> bool:
    """Return whether asking again under the same key does nothing twice."""
    call = last_call(key)
    return call is None or (call.outcome not in _OVER and now - call.first_at < KEY_LIFE)


def next_number(account_id: UUID, operation: str) -> int:
    """Return the number, from 1, of the account's next call of that kind.

    It stays until the provider has said yes or no, so that what is asked twice at once, or again
    because no answer came, has one number. For keys of what may be asked for many times.
    """
    over = (ProviderCall.Outcome.DONE, ProviderCall.Outcome.REFUSED)
    calls = ProviderCall.objects.filter(account=account_id, operation=operation, outcome__in=over)
    return calls.count() + 1


def note_done(call: ProviderCall) -> None:
    """Write down that a call without an answer was looked for, and found to be done."""
    ProviderCall.objects.filter(pk=call.pk).update(outcome=ProviderCall.Outcome.DONE)


MOST_GENERATIONS = 50
"""Of one call's key: it is asked for anew so often at most."""


def _names(key: str) -> list[str]:
    return [key, *(f"{key}.{number}" for number in range(2, MOST_GENERATIONS + 1))]


def _write_down(call: Call, *, now: datetime) -> ProviderCall:
    with transaction.atomic(durable=True):
        last = last_call(call.key)
        if last is None:
            key = call.key
        elif is_repeatable(call.key, now=now):
            key = last.key
        else:
            names = _names(call.key)
            at = names.index(last.key) + 1
            if at == len(names):
                raise BusyError(f"{call.operation} was asked for {at} times. Look at its calls.")
            key = names[at]
        row, _ = ProviderCall.objects.get_or_create(
            key=key,
            defaults={
                "operation": call.operation,
                "account_id": call.account_id,
                "collection_id": call.collection_id,
                "attempt_id": call.attempt_id,
                "refund_id": call.refund_id,
                "first_at": now,
                "last_at": now,
                "asked": _plain(call.asked),
            },
        )
        ProviderCall.objects.filter(pk=row.pk).update(times=F("times") + 1, last_at=now)
    return row


def _keep(row: ProviderCall, outcome: ProviderCall.Outcome, answered: dict[str, Any]) -> None:
    ProviderCall.objects.filter(pk=row.pk).update(
        outcome=outcome, answered=answered, answered_at=F("last_at")
    )


def _error(error: ProviderError) -> dict[str, Any]:
    told = {"error": type(error).__name__, "message": _plain(str(error))}
    for name in ("code", "decline_code"):
        if value := getattr(error, name, ""):
            told[name] = value
    return told


def _told(answer: object) -> dict[str, Any]:
    plain = _plain(answer)
    return plain if isinstance(plain, dict) else {"answer": plain}


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, for people to read, without its secrets."""
    if dataclasses.is_dataclass(value) and not isinstance(value, Money | type):
        return _plain({item.name: getattr(value, item.name) for item in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED if _SECRETS.search(str(name)) and held else _plain(held)
            for name, held in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool | int) or value is None:
        return value
    return _SECRET_TEXTS.sub(REDACTED, str(value))
