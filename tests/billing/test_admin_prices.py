from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from billing import services
from billing.models import Price, PriceBook, PriceBookVersion
from tests.billing import admin_pages
from tests.billing.admin_pages import formset, moment, page, press, text_of
from tests.billing.usage import AFTER_MAY, NOON, open_account

pytestmark = pytest.mark.django_db

AHEAD = AFTER_MAY + timedelta(days=30)


@pytest.fixture(autouse=True)
def _it_is_after_may(set_clock: Callable[[datetime], None]) -> None:
    set_clock(AFTER_MAY)


@pytest.fixture
def finance() -> Client:
    return admin_pages.finance()


@pytest.fixture
def version() -> PriceBookVersion:
    """A version ahead, whose prices can be changed."""
    return services.start_version(PriceBook.objects.get().pk, effective_from=AHEAD, now=AFTER_MAY)


def form_of(version: PriceBookVersion, charge: str, **said: str) -> dict[str, str]:
    return {
        "version": str(version.pk),
        "meter": "disk_read",
        "currency": "USD",
        "charge": charge,
        "free_units": "0",
        "minimum": "0",
        **said,
    }


def tier(position: int, up_to: str, unit_price: str = "1", flat_fee: str = "0") -> dict[str, str]:
    return {
        "position": str(position),
        "up_to": up_to,
        "unit_price": unit_price,
        "flat_fee": flat_fee,
    }


def add(client: Client, form: Mapping[str, str], *tiers: Mapping[str, str]) -> str:
    response = client.post(page(Price, "add"), {**form, **formset("tiers", *tiers)}, follow=True)
    assert response.status_code == 200
    return text_of(response)


def change(client: Client, price: Price, tiers: list[dict[str, str]], **said: str) -> str:
    """Return the form of a price whose tiers are there already, with `tiers` in their place."""
    rows = list(price.tiers.all())
    fields = dict(formset("tiers", *tiers))
    fields["tiers-INITIAL_FORMS"] = str(len(rows))
    for at, row in enumerate(rows):
        fields |= {f"tiers-{at}-id": str(row.pk), f"tiers-{at}-price": str(price.pk)}
    charge = said.pop("charge", price.charge)
    form = form_of(price.version, charge, meter=price.meter, **said)
    response = client.post(page(Price, price.pk, "change"), {**form, **fields}, follow=True)
    return text_of(response)


def tiers_of(price: Price) -> list[tuple[int, Decimal | None]]:
    return list(price.tiers.values_list("position", "up_to"))


@pytest.mark.parametrize(
    ("charge", "said"),
    [
        ("per_unit", {"unit_price": "0.0001"}),
        ("package", {"unit_price": "5", "package_size": "100"}),
        ("percentage", {"percent": "2.5", "fee_per_event": "0.3", "maximum": "10"}),
    ],
)
def test_a_price_of_each_charge_is_added(
    finance: Client, version: PriceBookVersion, charge: str, said: dict[str, str]
) -> None:
    add(finance, form_of(version, charge, **said))
    assert version.prices.get(meter="disk_read").charge == charge


def test_a_price_is_added_with_its_tiers_and_they_are_shown(
    finance: Client, version: PriceBookVersion
) -> None:
    add(finance, form_of(version, "graduated"), tier(1, "100"), tier(2, "", "0.5", "3"))
    price = version.prices.get(meter="disk_read")
    assert tiers_of(price) == [(1, Decimal(100)), (2, None)]
    shown = text_of(finance.get(page(PriceBookVersion, version.pk, "change")))
    assert page(Price, price.pk, "change") in shown
    assert "up to 100: 1 USD" in shown
    assert "above: 0.5 USD and 3.00 USD once" in shown


@pytest.mark.parametrize(
    ("charge", "tiers", "sentence"),
    [
        (
            "graduated",
            [],
            "A graduated price needs tiers. Add at least one, with up_to left empty.",
        ),
        ("volume", [], "A volume price needs tiers. Add at least one, with up_to left empty."),
        ("graduated", [tier(1, "5")], "Leave up_to empty in the last tier, and only there."),
        (
            "graduated",
            [tier(1, ""), tier(2, "")],
            "Leave up_to empty in the last tier, and only there.",
        ),
        (
            "graduated",
            [tier(1, "5"), tier(2, "5"), tier(3, "")],
            "Tiers are out of order. Let every up_to be more than the one before.",
        ),
        (
            "volume",
            [tier(2, "5"), tier(1, "7"), tier(3, "")],
            "Tiers are out of order. Let every up_to be more than the one before.",
        ),
        (
            "per_unit",
            [tier(1, "")],
            "A per unit price has no tiers. Delete them, or charge graduated or volume.",
        ),
        ("graduated", [tier(1, "5"), tier(1, "")], "position"),
        ("graduated", [tier(1, "", "-1")], "Use 0 or more for prices and fees"),
        ("graduated", [tier(1, "0"), tier(2, "")], "up_to above 0"),
    ],
)
def test_tiers_that_do_not_fit_are_refused_with_a_sentence(
    finance: Client,
    version: PriceBookVersion,
    charge: str,
    tiers: list[dict[str, str]],
    sentence: str,
) -> None:
    said = {"unit_price": "1"} if charge == "per_unit" else {}
    assert sentence in add(finance, form_of(version, charge, **said), *tiers)
    assert not version.prices.filter(meter="disk_read").exists()


def test_a_tier_can_be_put_between_and_taken_out(
    finance: Client, version: PriceBookVersion
) -> None:
    add(finance, form_of(version, "graduated"), tier(1, "100"), tier(2, ""))
    price = version.prices.get(meter="disk_read")
    change(finance, price, [tier(1, "100"), tier(3, ""), tier(2, "200")])
    assert tiers_of(price) == [(1, Decimal(100)), (2, Decimal(200)), (3, None)]
    out = {**tier(2, "200"), "DELETE": "on"}
    change(finance, price, [tier(1, "100"), out, tier(3, "")])
    assert tiers_of(price) == [(1, Decimal(100)), (3, None)]
    gone = [{**tier(1, "100"), "DELETE": "on"}, {**tier(3, ""), "DELETE": "on"}]
    assert "needs tiers" in change(finance, price, gone)
    change(finance, price, gone, charge="per_unit", unit_price="2")
    price.refresh_from_db()
    assert (price.charge, tiers_of(price)) == ("per_unit", [])


@pytest.mark.parametrize(
    ("charge", "said", "sentence"),
    [
        ("per_unit", {"unit_price": "-1"}, "Use 0 or more for every price"),
        ("per_unit", {"unit_price": "1", "minimum": "-1"}, "Use 0 or more for every price"),
        ("percentage", {"percent": "101"}, "Use a percent from 0 to 100."),
        ("percentage", {"percent": "1", "maximum": "1", "minimum": "2"}, "a maximum that is not"),
        ("per_unit", {"unit_price": "1", "currency": "ABC"}, "Use a currency of ISO 4217"),
        ("per_unit", {}, "Per unit needs unit_price"),
        ("package", {"unit_price": "1"}, "package needs unit_price and package_size"),
        ("per_unit", {"unit_price": "1", "percent": "1"}, "Leave the rest empty."),
        ("per_unit", {"unit_price": "1", "meter": "cpu"}, "This version has a price for the meter"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_a_sentence(
    finance: Client, version: PriceBookVersion, charge: str, said: dict[str, str], sentence: str
) -> None:
    before = version.prices.count()
    assert sentence in add(finance, form_of(version, charge, **said))
    assert version.prices.count() == before


def test_a_price_cannot_become_a_second_one_of_its_meter(
    finance: Client, version: PriceBookVersion
) -> None:
    price = version.prices.get(meter="cpu")
    form = form_of(version, "per_unit", meter="memory", unit_price="1")
    response = finance.post(page(Price, price.pk, "change"), {**form, **formset("tiers")})
    assert "This version has a price for the meter. Change that one." in text_of(response)


def test_prices_in_force_stay_and_those_ahead_can_be_edited(
    finance: Client, version: PriceBookVersion
) -> None:
    in_force = PriceBookVersion.objects.get(effective_to=AHEAD)
    assert "Start a new version" in add(finance, form_of(in_force, "per_unit", unit_price="1"))
    settled = in_force.prices.get(meter="cpu")
    shown = text_of(finance.get(page(Price, settled.pk, "change")))
    assert 'name="unit_price"' not in shown
    assert finance.post(page(Price, settled.pk, "change"), {}).status_code == 403
    assert finance.post(page(Price, settled.pk, "delete"), {"post": "yes"}).status_code == 403
    ahead = version.prices.get(meter="cpu")
    form = form_of(version, "per_unit", meter="cpu", unit_price="0.5")
    response = finance.post(page(Price, ahead.pk, "change"), {**form, **formset("tiers")})
    assert response.status_code == 302
    ahead.refresh_from_db()
    assert ahead.unit_price == Decimal("0.5")
    assert finance.post(page(Price, ahead.pk, "delete"), {"post": "yes"}).status_code == 302
    assert not version.prices.filter(meter="cpu").exists()


def test_what_a_version_in_force_lacks_in_a_currency_can_be_added(finance: Client) -> None:
    in_force = PriceBookVersion.objects.get()
    euro = form_of(in_force, "per_unit", meter="cpu", currency="eur", unit_price="1")
    for _ in range(2):
        add(finance, euro)
    assert in_force.prices.filter(meter="cpu").count() == 2
    assert "Start a new version" in add(finance, form_of(in_force, "per_unit", unit_price="1"))


def test_a_button_leads_to_a_new_price_of_the_version(
    finance: Client, version: PriceBookVersion
) -> None:
    response = finance.get(page(PriceBookVersion, version.pk, "add_price"), follow=True)
    assert f'<option value="{version.pk}" selected' in text_of(response)


def test_a_new_version_begins_as_a_copy_of_the_last_one(finance: Client) -> None:
    book = PriceBook.objects.get()
    said = moment("effective_from", AHEAD)
    for _ in range(2):
        press(finance, book, "start_version", **said)
    last, first = book.versions.all()
    assert (first.effective_to, last.effective_from, last.effective_to) == (AHEAD, AHEAD, None)
    columns = ("meter", "currency", "charge", "unit_price", "minimum")
    assert [*first.prices.values_list(*columns)] == [*last.prices.values_list(*columns)]


@pytest.mark.parametrize(
    ("at", "sentence"),
    [(NOON, "which is over. Use a time after"), (AHEAD - timedelta(1), "follows already")],
)
def test_a_version_that_cannot_begin_then_is_refused(
    finance: Client, version: PriceBookVersion, at: datetime, sentence: str
) -> None:
    said = moment("effective_from", at)
    assert sentence in text_of(press(finance, version.book, "start_version", **said))
    assert PriceBookVersion.objects.count() == 2


def test_a_version_with_its_prices_can_be_put_where_none_was_in_force(finance: Client) -> None:
    first = PriceBookVersion.objects.get()
    first.effective_to = NOON
    first.save(update_fields=["effective_to"])
    form = {"book": first.book_id, **moment("effective_from", NOON), **formset("prices")}
    response = finance.post(page(PriceBookVersion, "add"), form)
    assert "brings its prices along" in text_of(response)
    press(finance, first.book, "start_version", **moment("effective_from", AHEAD))
    press(finance, first.book, "start_version", **moment("effective_from", NOON))
    between = PriceBookVersion.objects.get(effective_from=NOON)
    assert between.effective_to == AHEAD
    assert between.prices.count() == first.prices.count()


def test_versions_that_overlap_are_refused_with_a_sentence(
    finance: Client, version: PriceBookVersion
) -> None:
    in_force = PriceBookVersion.objects.get(effective_to=AHEAD)
    address = page(PriceBookVersion, in_force.pk, "change")
    endless = {"effective_to_0": "", "effective_to_1": "", **formset("prices")}
    response = finance.post(address, endless)
    assert "Another version of this book is in force in that time." in text_of(response)
    form = {"book": version.book_id, **moment("effective_from", AHEAD + timedelta(1))}
    response = finance.post(page(PriceBookVersion, "add"), form)
    assert "Another version of this book is in force in that time." in text_of(response)
    backwards = {**form, **moment("effective_to", AHEAD)}
    response = finance.post(page(PriceBookVersion, "add"), backwards)
    assert "Let effective_to be later than effective_from." in text_of(response)


def test_what_held_already_is_not_ended(finance: Client) -> None:
    version = PriceBookVersion.objects.get()
    address = page(PriceBookVersion, version.pk, "change")
    past, ahead = ({**moment("effective_to", at), **formset("prices")} for at in (NOON, AHEAD))
    assert "What held stays." in text_of(finance.post(address, past))
    assert finance.post(address, ahead).status_code == 302
    version.refresh_from_db()
    assert version.effective_to == AHEAD


def test_a_book_is_copied_for_an_account_and_can_be_changed_until_it_is_used(
    finance: Client,
) -> None:
    account = open_account()
    shared = PriceBook.objects.get()
    said = {"account": str(account.pk), "code": "ada", "name": "Ada's"}
    for _ in range(2):
        assert "is the own book of Ada" in text_of(press(finance, shared, "copy_as_own", **said))
    own = PriceBook.objects.get(account=account)
    price = own.versions.get().prices.get(meter="cpu")
    assert price.unit_price == Decimal("0.000012")
    assert 'name="unit_price"' in text_of(finance.get(page(Price, price.pk, "change")))
    services.subscribe(
        account.pk, plan_code="team", now=NOON, agreed=services.AgreedTerms(price_book=own)
    )
    assert 'name="unit_price"' not in text_of(finance.get(page(Price, price.pk, "change")))


def test_a_copy_takes_the_tiers_with_it(finance: Client, version: PriceBookVersion) -> None:
    add(finance, form_of(version, "volume"), tier(1, "100"), tier(2, "", "0.5", "3"))
    later = AHEAD + timedelta(days=1)
    press(finance, version.book, "start_version", **moment("effective_from", later))
    copy = Price.objects.get(version__effective_from=later, meter="disk_read")
    assert tiers_of(copy) == [(1, Decimal(100)), (2, None)]
    assert copy.tiers.get(position=2).flat_fee == Decimal(3)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [("default", "is taken by"), ("Ada Labs", "Use small letters, digits and hyphens")],
)
def test_a_copy_under_a_code_that_cannot_be_is_refused(
    finance: Client, code: str, sentence: str
) -> None:
    shared = PriceBook.objects.get()
    said = {"account": str(open_account().pk), "code": code, "name": "Ada's"}
    assert sentence in text_of(press(finance, shared, "copy_as_own", **said))
    assert PriceBook.objects.count() == 1


def test_an_empty_book_has_nothing_to_copy(finance: Client) -> None:
    empty = PriceBook.objects.create(code="empty", name="Empty")
    said = {"account": str(open_account().pk), "code": "ada", "name": "Ada's"}
    assert "no version in force" in text_of(press(finance, empty, "copy_as_own", **said))
    assert not PriceBook.objects.filter(code="ada").exists()
