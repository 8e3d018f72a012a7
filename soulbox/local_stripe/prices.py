"""The prices and products that are there from the start."""

from __future__ import annotations

from soulbox.local_stripe import lists
from soulbox.local_stripe.state import Obj
from soulbox.local_stripe.world import Call, Served, World, served

# Monthly fees in cents, by product.
SEEDED = {"pro": ("SoulBox Professional", 9900), "team": ("SoulBox Team", 29900)}


def seed(world: World) -> None:
    """Add the products and prices that a new account has."""
    for name, (title, amount) in SEEDED.items():
        product_id, price_id = f"prod_soulbox_{name}", f"price_soulbox_{name}_monthly"
        world.add(
            {
                "id": product_id,
                "object": "product",
                "active": True,
                "created": world.now,
                "default_price": price_id,
                "description": None,
                "images": [],
                "livemode": False,
                "marketing_features": [],
                "metadata": {},
                "name": title,
                "package_dimensions": None,
                "shippable": None,
                "statement_descriptor": None,
                "tax_code": None,
                "unit_label": None,
                "updated": world.now,
                "url": None,
            }
        )
        world.add(
            {
                "id": price_id,
                "object": "price",
                "active": True,
                "billing_scheme": "per_unit",
                "created": world.now,
                "currency": "usd",
                "custom_unit_amount": None,
                "livemode": False,
                "lookup_key": price_id.removeprefix("price_"),
                "metadata": {},
                "nickname": None,
                "product": product_id,
                "recurring": {
                    "interval": "month",
                    "interval_count": 1,
                    "meter": None,
                    "usage_type": "licensed",
                },
                "tax_behavior": "unspecified",
                "tiers_mode": None,
                "transform_quantity": None,
                "type": "recurring",
                "unit_amount": amount,
                "unit_amount_decimal": str(amount),
            }
        )


def retrieve(call: Call) -> Obj:
    """Return a price."""
    return call.world.get("price", call.id)


def list_page(call: Call) -> Obj:
    """Return prices."""
    keys = call.get("lookup_keys")
    found = [
        one
        for one in call.world.all("price")
        if call.get("active") in (None, one["active"])
        and call.get("product") in (None, one["product"])
        and (keys is None or one["lookup_key"] in keys)
    ]
    return lists.page(call, found, "/v1/prices")


def retrieve_product(call: Call) -> Obj:
    """Return a product."""
    return call.world.get("product", call.id)


OPERATIONS: dict[str, Served] = {
    "GetPricesPrice": served(retrieve),
    "GetPrices": served(list_page, "active", "product", "lookup_keys", *lists.PAGING),
    "GetProductsId": served(retrieve_product),
}
