"""The tables, re-exported: Django looks for an app's models here."""

from metering.models.evidence import CounterReset, Gap, LateUsage, Refusal
from metering.models.hosts import AccountRegistration, Host, StreamCursor
from metering.models.lives import InterfaceReading, Life, LifeReading, Sandbox
from metering.models.usage import NetworkUsageRecord, UsageRecord, UsageRow

__all__ = [
    "AccountRegistration",
    "CounterReset",
    "Gap",
    "Host",
    "InterfaceReading",
    "LateUsage",
    "Life",
    "LifeReading",
    "NetworkUsageRecord",
    "Refusal",
    "Sandbox",
    "StreamCursor",
    "UsageRecord",
    "UsageRow",
]
