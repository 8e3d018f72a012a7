from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from billing.discounts import Discount
from billing.money import Money
from billing.rating import Rating
from billing.statement import Statement
from metering.meters import Meter

_PARTS = {
    "cpu_cost": (Meter.CPU, Meter.CPU_ALLOCATED),
    "memory_cost": (Meter.MEMORY, Meter.MEMORY_ALLOCATED),
    "network_cost": (Meter.NETWORK_EGRESS, Meter.NETWORK_INGRESS),
    "storage_cost": (Meter.STORAGE, Meter.DISK_READ, Meter.DISK_WRITE),
    "gpu_cost": (Meter.GPU,),
}


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """What the usage of a period costs. Costs are exact; amounts of money are rounded.

    final_cost = usage_fee - total_discount - credits_used. Where a price book charges for it,
    disk traffic counts as storage, and what is allocated as cpu and memory.
    """

    cpu_cost: Fraction
    memory_cost: Fraction
    network_cost: Fraction
    storage_cost: Fraction
    gpu_cost: Fraction
    raw_cost: Fraction
    usage_fee: Money
    discounts: tuple[Discount, ...]
    total_discount: Money
    credits_used: Money
    final_cost: Money


def break_down_cost(statement: Statement) -> CostBreakdown:
    """Return what the usage of the stated period costs, by kind of resource and in total."""
    totals = statement.totals
    return CostBreakdown(
        **{part: statement.rating.cost_of(*meters) for part, meters in _PARTS.items()},
        raw_cost=statement.rating.raw_cost,
        usage_fee=totals.usage_fee,
        discounts=statement.discounts,
        total_discount=totals.discounts,
        credits_used=totals.credits_used,
        final_cost=totals.usage_fee - totals.discounts - totals.credits_used,
    )


def cost_by_meter(rating: Rating) -> dict[Meter, Fraction]:
    """Return the exact cost of each meter that has a line."""
    return {meter: rating.cost_of(meter) for meter in {line.meter: None for line in rating.lines}}
