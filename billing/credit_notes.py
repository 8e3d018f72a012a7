"""What a credit note takes back: net and tax, so that all notes of an invoice fit into it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from billing.money import Money
from billing.totals import Tax


class CreditNoteRefusedError(ValueError):
    """The invoice cannot be credited like this; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Net and tax of a credit note, both above or at zero."""

    net: Money
    tax: Money

    @property
    def total(self) -> Money:
        """Return what the account has back in all."""
        return self.net + self.tax

    def __sub__(self, other: Figures) -> Figures:
        return Figures(self.net - other.net, self.tax - other.tax)


@dataclass(frozen=True, slots=True)
class Creditable:
    """What of an invoice can be credited still, and how it was taxed."""

    left: Figures
    tax: Tax

    @property
    def in_lines(self) -> Money:
        """Return it in the terms of lines: with the tax where prices contain it."""
        return self.left.total if self.tax.is_inclusive else self.left.net

    def of_total(self, total: Money) -> Figures:
        """Return the note of so much, tax and all. Raises CreditNoteRefusedError.

        The tax is the total's at the invoice's rate. The note that takes all that is left takes
        what is left of the tax, so that notes add up to the invoice.
        """
        self._refuse_unless_fitting(total, self.left.total)
        tax = self._fitting(Tax(self.tax.rate, is_inclusive=True).on(total), total)
        return Figures(total - tax, tax)

    def of_lines(self, amount: Money) -> Figures:
        """Return the note whose lines sum to `amount`. Raises CreditNoteRefusedError."""
        if self.tax.is_inclusive:
            return self.of_total(amount)
        self._refuse_unless_fitting(amount, self.left.net)
        if amount == self.left.net:
            return self.left
        return Figures(amount, min(self.tax.on(amount), self.left.tax))

    def lines_of(self, figures: Figures) -> Money:
        """Return what the lines of a note of these figures sum to."""
        return figures.total if self.tax.is_inclusive else figures.net

    def _fitting(self, tax: Money, total: Money) -> Money:
        """Return the tax of a note, no more than is left, and so much that the net fits too."""
        return max(total - self.left.net, min(tax, self.left.tax))

    def _refuse_unless_fitting(self, amount: Money, left: Money) -> None:
        if amount.amount <= 0 or amount.times(Decimal(1)) != amount:
            raise CreditNoteRefusedError(f"The amount is {amount}. Use whole cents, above 0.")
        if left < amount:
            raise CreditNoteRefusedError(f"The amount is {amount}, and {left} can be credited.")
