"""Who sells and who buys, as an invoice keeps them: from what is known now, to JSON and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from billing.documents.document import Party, TaxId

TAX_ID_NAME: Final = "Tax ID"
"""What a tax number is called that comes without a name."""

_LINE_ENDS: Final = re.compile(r"\r\n|[\r\n\u2028\u2029]")


def seller_party(*, name: str, address: str, tax_id: str) -> Party:
    """Return the seller. A semicolon ends a line of the address."""
    return Party(name, _lines(address.split(";")), _tax_ids(tax_id))


def buyer_of(name: str, address: str, tax_id: str) -> Party:
    """Return the buyer: an account's name, its address line by line, and its tax number."""
    return Party(name, _lines(_LINE_ENDS.split(address)), _tax_ids(tax_id))


def as_json(party: Party) -> dict[str, Any]:
    """Return the party as a column of JSON keeps it; `party_from` reads it back."""
    return {
        "name": party.name,
        "address": list(party.address),
        "tax_ids": [{"name": known.name, "number": known.number} for known in party.tax_ids],
    }


def party_from(kept: Mapping[str, Any]) -> Party | None:
    """Return the party that `as_json` wrote; None where none was kept. Raises KeyError."""
    if not kept:
        return None
    tax_ids = tuple(TaxId(known["name"], known["number"]) for known in kept["tax_ids"])
    return Party(kept["name"], tuple(kept["address"]), tax_ids)


def _lines(lines: list[str]) -> tuple[str, ...]:
    return tuple(shown for line in lines if (shown := line.strip()))


def _tax_ids(text: str) -> tuple[TaxId, ...]:
    """Return the number and what it is called: the words before the first with a digit."""
    words = text.split()
    if not words:
        return ()
    first = next((at for at, word in enumerate(words) if re.search(r"\d", word)), 0)
    return (TaxId(" ".join(words[:first]) or TAX_ID_NAME, " ".join(words[first:])),)
