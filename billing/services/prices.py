from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Model, Q

from billing.models import Price, PriceBook, PriceBookVersion, PriceTier
from billing.services.accounts import lock_account


class PriceBookRefusedError(ValueError):
    """A price book cannot be made or changed like this; the message says what to do."""


def copy_book(book_id: int, *, account_id: UUID, code: str, name: str, now: datetime) -> PriceBook:
    """Copy the version in force into a new book, the account's own, from the same moment on.

    Safe to repeat: the account's book of this code is found, and stays as it is. Raises
    PriceBookRefusedError, PriceBook.DoesNotExist, Account.DoesNotExist.
    """
    with transaction.atomic():
        account = lock_account(account_id)
        book, created = PriceBook.objects.get_or_create(
            code=code, defaults={"name": name, "account": account}
        )
        if not created:
            if book.account_id != account.pk:
                raise PriceBookRefusedError(f"code {code!r} is taken by {book}. Use another code.")
            return book
        copied = _version_at(PriceBook.objects.get(pk=book_id), now)
        if copied is None:
            raise PriceBookRefusedError(
                "The book has no version in force. Add one, or copy another book."
            )
        version = PriceBookVersion.objects.create(book=book, effective_from=copied.effective_from)
        _copy_prices(copied, version)
    return book


def start_version(book_id: int, *, effective_from: datetime, now: datetime) -> PriceBookVersion:
    """Let a copy of the prices before it take over at a moment ahead, or where none were in force.

    Until it is in force its prices can be changed. Safe to repeat: the version of that moment is
    found. Raises PriceBookRefusedError, PriceBook.DoesNotExist.
    """
    with transaction.atomic():
        book = PriceBook.objects.select_for_update().get(pk=book_id)
        if found := book.versions.filter(effective_from=effective_from).first():
            return found
        in_force = _version_at(book, effective_from)
        following = book.versions.filter(effective_from__gt=effective_from).last()
        if in_force and effective_from <= now:
            raise PriceBookRefusedError(
                f"effective_from is {effective_from}, which is over. Use a time after {now}."
            )
        if in_force and following:
            raise PriceBookRefusedError(
                f"A version from {following.effective_from} on follows already. Use a later time, "
                "or change that one."
            )
        copied = book.versions.filter(effective_from__lt=effective_from).first() or following
        if in_force:
            in_force.effective_to = effective_from
            in_force.save(update_fields=["effective_to"])
        version = PriceBookVersion.objects.create(
            book=book,
            effective_from=effective_from,
            effective_to=following.effective_from if following else None,
        )
        if copied:
            _copy_prices(copied, version)
    return version


def _version_at(book: PriceBook, moment: datetime) -> PriceBookVersion | None:
    return (
        book.versions.filter(effective_from__lte=moment)
        .filter(Q(effective_to__isnull=True) | Q(effective_to__gt=moment))
        .first()
    )


def _copy_prices(source: PriceBookVersion, target: PriceBookVersion) -> None:
    for price in source.prices.prefetch_related("tiers"):
        copy = Price.objects.create(version=target, **_columns(price, but={"id", "version"}))
        PriceTier.objects.bulk_create(
            PriceTier(price=copy, **_columns(tier, but={"id", "price"}))
            for tier in price.tiers.all()
        )


def _columns(row: Model, *, but: set[str]) -> dict[str, Any]:
    fields = row._meta.concrete_fields  # noqa: SLF001 - Django's public name for it
    return {field.name: getattr(row, field.name) for field in fields if field.name not in but}
