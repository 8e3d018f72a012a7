# ruff: noqa: INP001 -- a script that nobody imports; a package would be one more bench
"""How many accounts' usage is priced in a second, beside the same sums on bare numbers.

    make bench-rating              under two minutes
    QUICK=1 make bench-rating      under half a minute

Each account has six meters, each with three graduated tiers. Rating makes every line's exact
cost, its rounded amount and the usage fee. The floor makes the same numerators, denominators and
amounts by hand, from lists of whole numbers, with neither objects nor checks; both have to agree
on every account before anything is timed. Every figure goes to bench/results/rating.json.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import lcm
from pathlib import Path
from statistics import quantiles
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
# Python put this file's folder there, in which the module `metering` is another bench.
sys.path[0] = str(ROOT)

from billing.charges import Graduated, Price, Tier  # noqa: E402 -- found from here on only
from billing.rating import PricedUsage, Prices, Rating, rate_usage  # noqa: E402
from metering.meters import UNITS, Meter  # noqa: E402
from metering.period import Period  # noqa: E402

SEED = 20260501
ACCOUNTS, SLICE = 2_000, 200
ROUNDS, QUICK_ROUNDS = 1_000, 250
MAY = Period(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
FIRST_PART = Period(MAY.start, datetime(2026, 5, 17, tzinfo=UTC))
SECOND_PART = Period(FIRST_PART.end, MAY.end)
RESULTS = ROOT / "bench" / "results" / "rating.json"
# By meter: the ends of the first two tiers, in shown units, and the three unit prices.
TIERS = {
    Meter.CPU: ("360000", "3600000", "0.000012", "0.00001", "0.000008"),
    Meter.MEMORY: ("720000", "7200000", "0.000004", "0.0000035", "0.000003"),
    Meter.NETWORK_EGRESS: ("100", "1000", "0.02", "0.015", "0.01"),
    Meter.NETWORK_INGRESS: ("100", "1000", "0.002", "0.0015", "0.001"),
    Meter.STORAGE: ("1000", "10000", "0.0001", "0.00008", "0.00005"),
    Meter.GPU: ("3600", "36000", "0.0006", "0.0005", "0.0004"),
}

Table: TypeAlias = tuple[int, int, int, int, int, int, int, int]
Sums: TypeAlias = tuple[list[tuple[int, int, int]], int]


def prices() -> Prices:
    """Return the price book: six meters of three tiers."""
    return Prices(
        {
            (meter, "USD"): Price(
                Graduated(
                    (
                        Tier(Decimal(first), Decimal(low)),
                        Tier(Decimal(second), Decimal(middle)),
                        Tier(None, Decimal(high)),
                    )
                )
            )
            for meter, (first, second, low, middle, high) in TIERS.items()
        }
    )


def usages(count: int) -> list[dict[Meter, int]]:
    """Return accounts' usage, spread over all three tiers."""
    chance = random.Random(SEED)  # noqa: S311 -- the same accounts in each run
    return [
        {
            meter: chance.randrange(UNITS[meter].size * 2 * int(second))
            for meter, (_, second, *_) in TIERS.items()
        }
        for _ in range(count)
    ]


def tables() -> list[Table]:
    """Return what the floor knows by meter: edges, costs up to them, rates, denominator."""
    made: list[Table] = []
    for meter, (first, second, *unit_prices) in TIERS.items():
        size = UNITS[meter].size
        rates = [Fraction(unit_price) / size for unit_price in unit_prices]
        denominator = lcm(*(rate.denominator for rate in rates))
        low, middle, high = (int(rate * denominator) for rate in rates)
        first_edge, second_edge = int(first) * size, int(second) * size
        at_first = first_edge * low
        at_second = at_first + (second_edge - first_edge) * middle
        made.append((first_edge, second_edge, at_first, at_second, low, middle, high, denominator))
    return made


def rate_bare(quantities: list[int], known: list[Table]) -> Sums:
    """Return each meter's numerator, denominator and cents, and the cents of all."""
    rated: list[tuple[int, int, int]] = []
    fee = 0
    for quantity, (first, second, at_first, at_second, low, middle, high, denominator) in zip(
        quantities, known, strict=True
    ):
        if quantity <= first:
            numerator = quantity * low
        elif quantity <= second:
            numerator = at_first + (quantity - first) * middle
        else:
            numerator = at_second + (quantity - second) * high
        cents = (200 * numerator + denominator) // (2 * denominator)
        rated.append((numerator, denominator, cents))
        fee += cents
    return rated, fee


def refuse_unless_equal(ratings: list[Rating], floor: list[Sums]) -> None:
    """Raise ValueError unless both came to the same costs, amounts and fees."""
    for rating, (rated, fee) in zip(ratings, floor, strict=True):
        costs = [(line.cost, line.minor_units) for line in rating.lines]
        if costs != [(Fraction(numerator, below), cents) for numerator, below, cents in rated]:
            raise ValueError(f"Rating and the floor differ: {rating.lines}, {rated}.")
        if rating.usage_fee.amount != Decimal(fee).scaleb(-2):
            raise ValueError(f"The usage fees differ: {rating.usage_fee}, {fee} cents.")


def time_rounds(ways: Sequence[Callable[[slice], None]], rounds: int) -> dict[str, dict[str, int]]:
    """Return how many accounts a second each way rates: the median round, and the quartiles.

    Each round times some accounts in every way, one after the other, so that a busy moment of
    the machine slows them all.
    """
    seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
    for at in range(rounds):
        start = at * SLICE % ACCOUNTS
        for way in ways:
            began = time.perf_counter()
            way(slice(start, start + SLICE))
            seconds[way.__name__].append(time.perf_counter() - began)
    figures: dict[str, dict[str, int]] = {}
    for name, taken in seconds.items():
        upper, middle, lower = (round(SLICE / quartile) for quartile in quantiles(taken, n=4))
        figures[name] = {
            "accounts_per_second": middle,
            "lower_quartile": lower,
            "upper_quartile": upper,
        }
    return figures


def main() -> None:
    """Measure, print a table and write the figures down."""
    rounds = QUICK_ROUNDS if os.environ.get("QUICK") else ROUNDS
    known, used = tables(), usages(ACCOUNTS)
    bare = [list(usage.values()) for usage in used]
    book, next_version = prices(), prices()
    whole = [[PricedUsage(MAY, usage, book)] for usage in used]
    changed = [
        [PricedUsage(FIRST_PART, usage, book), PricedUsage(SECOND_PART, usage, next_version)]
        for usage in used
    ]
    refuse_unless_equal(
        [rate_usage(spans, currency="USD") for spans in whole],
        [rate_bare(quantities, known) for quantities in bare],
    )

    def floor(accounts: slice) -> None:
        for quantities in bare[accounts]:
            rate_bare(quantities, known)

    def rating(accounts: slice) -> None:
        for spans in whole[accounts]:
            _ = rate_usage(spans, currency="USD").usage_fee

    def rating_with_lines(accounts: slice) -> None:
        for spans in whole[accounts]:
            rated = rate_usage(spans, currency="USD")
            _ = rated.usage_fee, [(line.cost, line.amount) for line in rated.lines]

    def rating_over_a_change(accounts: slice) -> None:
        for spans in changed[accounts]:
            _ = rate_usage(spans, currency="USD").usage_fee

    figures = time_rounds((floor, rating, rating_with_lines, rating_over_a_change), rounds)
    speed = {name: figure["accounts_per_second"] for name, figure in figures.items()}
    write_down(figures, speed, rounds)


def write_down(figures: dict[str, dict[str, int]], speed: dict[str, int], rounds: int) -> None:
    """Write every figure to RESULTS and print the table."""
    ratios = {
        # Exact costs as numerator and denominator, rounded amounts as whole cents, the fee.
        "of_python_floor": round(speed["rating"] / speed["floor"], 3),
        # The same, and every line made an object, its cost a Fraction and its amount Money.
        "with_lines_of_python_floor": round(speed["rating_with_lines"] / speed["floor"], 3),
        "over_a_change_of_python_floor": round(speed["rating_over_a_change"] / speed["floor"], 3),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "python": platform.python_version(),
                "accounts": ACCOUNTS,
                "meters": len(TIERS),
                "tiers": 3,
                "rounds": rounds,
                "accounts_per_round": SLICE,
                "figures": figures,
                "ratios": ratios,
            },
            indent=2,
        )
        + "\n"
    )
    for name, figure in figures.items():
        print(f"{name:22} {figure['accounts_per_second']:>10,} accounts/s")
    for name, ratio in ratios.items():
        print(f"{name:30} {ratio:.3f}")
    print(f"Every figure is in {RESULTS}.")


if __name__ == "__main__":
    main()
