from __future__ import annotations

import json

import pytest

from billing.documents.document import Party, TaxId
from billing.parties import as_json, buyer_of, party_from, seller_party
from tests.billing import documents


def test_a_sellers_address_ends_its_lines_with_semicolons() -> None:
    seller = seller_party(
        name="SoulBox GmbH", address="Lindenstraße 12; 10969 Berlin;", tax_id="VAT ID DE123456789"
    )

    assert seller == Party(
        "SoulBox GmbH",
        ("Lindenstraße 12", "10969 Berlin"),
        (TaxId("VAT ID", "DE123456789"),),
    )


def test_a_buyers_address_keeps_its_lines_and_drops_empty_ones() -> None:
    buyer = buyer_of("Northwind", "48 Harbour Road; 3rd floor\r\n\r\n Bristol BS1 5TY \n", "")

    assert buyer == Party("Northwind", ("48 Harbour Road; 3rd floor", "Bristol BS1 5TY"))


@pytest.mark.parametrize(
    ("given", "name", "number"),
    [
        ("GB987654321", "Tax ID", "GB987654321"),
        ("VAT ID DE 123 456", "VAT ID DE", "123 456"),
        ("Steuernummer 12/345/67890", "Steuernummer", "12/345/67890"),
        ("pending", "Tax ID", "pending"),
        ("الرقم ٣٠٠١٢٣", "الرقم", "٣٠٠١٢٣"),
    ],
)
def test_a_tax_number_says_what_it_is_called(given: str, name: str, number: str) -> None:
    assert buyer_of("Northwind", "", given).tax_ids == (TaxId(name, number),)


@pytest.mark.parametrize("party", [documents.BUYER, documents.SELLER, Party("")])
def test_a_party_is_read_back_as_it_was(party: Party) -> None:
    assert party_from(json.loads(json.dumps(as_json(party)))) == party


def test_nothing_kept_is_no_party() -> None:
    assert party_from({}) is None
