from __future__ import annotations

from decimal import Decimal

import pytest

from billing.charges import PerUnit


@pytest.mark.parametrize("unit_price", ["-0.01", "NaN", "Infinity"])
def test_a_price_that_is_no_amount_is_refused(unit_price: str) -> None:
    with pytest.raises(ValueError, match=r"PerUnit\.unit_price"):
        PerUnit(Decimal(unit_price))
