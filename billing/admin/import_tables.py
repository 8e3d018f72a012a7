"""What files may change: discount rules, prices that hold for nobody yet, accounts' addresses.

Invoices and credit are not among it: what happened is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError

from billing.admin.exporting import value_at
from billing.admin.importing import (
    FormResource,
    ImportColumn,
    day,
    flag,
    layout_of,
    moment,
    number,
    text,
)
from billing.admin.settled_prices import STAYS, is_settled
from billing.models import Account, DiscountRule, Plan, Price, PriceBookVersion
from billing.models.prices import TIERED
from billing.sheets import quoted


def _plan(column: str, cell: str, _before: str) -> object:
    """Return the key of the plan with that code."""
    if not cell:
        return None
    key = Plan.objects.filter(code=cell).values_list("pk", flat=True).first()
    if key is None:
        raise ValidationError(f"{column} is {quoted(cell)}. Use the code of a plan.")
    return key


def _account(column: str, cell: str, _before: str) -> object:
    """Return the id of an account; the form knows whether there is one."""
    return _uuid(column, cell) if cell else None


def _uuid(column: str, cell: str) -> UUID:
    try:
        return UUID(cell)
    except ValueError:
        raise ValidationError(f"{column} is {quoted(cell)}. Use the id of an account.") from None


def _same(column: str, cell: str, before: str) -> str:
    """Return what is there to tell rows apart by, and must be as it is."""
    if text(column, cell, before) != before:
        raise ValidationError(
            f"{column} is {quoted(cell)}, and it is {quoted(before)} here. It is not imported: "
            "look whether the row means another, or leave the column out."
        )
    return before


class DiscountRuleResource(FormResource):
    """Discount rules: with an id an existing one, without a new one."""

    layout = layout_of(
        (
            "id",
            "name",
            "kind",
            "scope",
            "plan",
            "account",
            "currency",
            "min_amount",
            "min_months",
            "percent",
            "amount",
            "priority",
            "is_active",
            "valid_from",
            "valid_to",
        ),
        ("id", "name"),
    )
    columns = (
        ImportColumn("id", text, value_at("pk")),
        ImportColumn("name", text, value_at("name")),
        ImportColumn("kind", text, value_at("kind")),
        ImportColumn("scope", text, value_at("scope")),
        ImportColumn("plan", _plan, value_at("plan.code")),
        ImportColumn("account", _account, value_at("account_id")),
        ImportColumn("currency", text, value_at("currency")),
        ImportColumn("min_amount", number, value_at("min_amount")),
        ImportColumn("min_months", number, value_at("min_months")),
        ImportColumn("percent", number, value_at("percent")),
        ImportColumn("amount", number, value_at("amount")),
        ImportColumn("priority", number, value_at("priority")),
        ImportColumn("is_active", flag, value_at("is_active")),
        ImportColumn("valid_from", day, value_at("valid_from")),
        ImportColumn("valid_to", day, value_at("valid_to")),
    )

    form_fields = tuple(column.name for column in columns if column.name != "id")

    class Meta(FormResource.Meta):
        model = DiscountRule

    def find(self, row: Mapping[str, str]) -> DiscountRule | None:
        """Return the rule of the id; None without one. Raises ValidationError."""
        if not (cell := row["id"]):
            return None
        rules = DiscountRule.objects.select_for_update(of=("self",))
        rule = rules.filter(pk=cell).first() if cell.isascii() and cell.isdigit() else None
        if rule is None:
            raise ValidationError(
                {"id": f"There is no rule {quoted(cell)}. Leave id empty for a new one."}
            )
        return rule


class ContactResource(FormResource):
    """Where accounts are, and where their e-mails go. Accounts are opened on their page."""

    layout = layout_of(("id", "name", "address", "tax_id", "billing_email"), ("id",))
    columns = (
        ImportColumn("id", text, value_at("pk")),
        ImportColumn("name", _same, value_at("name")),
        ImportColumn("address", text, value_at("address")),
        ImportColumn("tax_id", text, value_at("tax_id")),
        ImportColumn("billing_email", text, value_at("billing_email")),
    )

    form_fields = ("address", "tax_id", "billing_email")

    class Meta(FormResource.Meta):
        model = Account

    def find(self, row: Mapping[str, str]) -> Account:
        """Return the account of the id. Raises ValidationError."""
        try:
            account = Account.objects.select_for_update().get(pk=_uuid("id", row["id"]))
        except ValidationError as error:
            raise ValidationError({"id": error}) from None
        except Account.DoesNotExist:
            raise ValidationError(
                {"id": f"There is no account {quoted(row['id'])}. Look its id up."}
            ) from None
        return account

    def import_instance(self, instance: Account, row: Mapping[str, str], **options: Any) -> None:
        """Put the row's cells into the account. Raises ValidationError."""
        if "name" in row:
            try:
                _same("name", row["name"], instance.name)
            except ValidationError as error:
                raise ValidationError({"name": error}) from None
        super().import_instance(instance, row, **options)


class PriceResource(FormResource):
    """Prices of versions that hold for nobody yet, by book, start, meter and currency."""

    layout = layout_of(
        (
            "book",
            "effective_from",
            "meter",
            "currency",
            "charge",
            "unit_price",
            "package_size",
            "percent",
            "fee_per_event",
            "maximum",
            "free_units",
            "minimum",
        ),
        ("book", "effective_from", "meter", "currency"),
    )
    columns = (
        ImportColumn("book", text, value_at("version.book.code")),
        ImportColumn("effective_from", text, value_at("version.effective_from")),
        ImportColumn("meter", text, value_at("meter")),
        ImportColumn("currency", text, value_at("currency")),
        ImportColumn("charge", text, value_at("charge")),
        ImportColumn("unit_price", number, value_at("unit_price")),
        ImportColumn("package_size", number, value_at("package_size")),
        ImportColumn("percent", number, value_at("percent")),
        ImportColumn("fee_per_event", number, value_at("fee_per_event")),
        ImportColumn("maximum", number, value_at("maximum")),
        ImportColumn("free_units", number, value_at("free_units")),
        ImportColumn("minimum", number, value_at("minimum")),
    )

    form_fields = tuple(
        column.name for column in columns if column.name not in {"book", "effective_from"}
    )

    class Meta(FormResource.Meta):
        model = Price

    def find(self, row: Mapping[str, str]) -> Price | None:
        """Return the version's price of the meter; None when there is none. Raises ValidationError.

        Also for a version that is in force, and for a price with tiers.
        """
        version = self._version(row)
        price = version.prices.filter(meter=row["meter"], currency=row["currency"].upper()).first()
        tiered = [
            charge for charge in (row.get("charge"), price and price.charge) if charge in TIERED
        ]
        if tiered:
            raise ValidationError(
                {
                    "charge": f"A {tiered[0]} price has tiers, which a file has no place for. "
                    "Change it on its page."
                }
            )
        return price

    def begun(self, row: Mapping[str, str]) -> Price:
        """Return a new price of the version. Raises ValidationError."""
        return Price(version=self._version(row))

    def _version(self, row: Mapping[str, str]) -> PriceBookVersion:
        try:
            start = moment("effective_from", row["effective_from"])
        except ValidationError as error:
            raise ValidationError({"effective_from": error}) from None
        version = (
            PriceBookVersion.objects.filter(book__code=row["book"], effective_from=start)
            .select_related("book")
            .first()
        )
        if version is None:
            raise ValidationError(
                {
                    "book": f"No book {quoted(row['book'])} has a version from {start} on. Start "
                    "it on the book's page."
                }
            )
        if is_settled(version, datetime.now(UTC)):
            raise ValidationError({"effective_from": f"{version} is in force. {STAYS}"})
        return version
