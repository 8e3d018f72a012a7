"""The tables, re-exported: Django looks for an app's models here."""

from metering.models.evidence import CounterReset, Gap, LateUsage, Refusal
from metering.models.hosts import AccountRegistration, FormerTimeZone, Host, StreamCursor
from metering.models.keys import MeteringKey
from metering.models.lives import InterfaceReading, Life, LifeReading, Sandbox, StorageReading
from metering.models.monitoring import ToldAccount, UsageCounter
from metering.models.summaries import (
    DailyUsageSummary,
    DailyUsageTotal,
    SettledDays,
    TouchedDay,
)
from metering.models.usage import (
    NetworkUsageRecord,
    StorageUsageRecord,
    UsageRecord,
    UsageRow,
)

__all__ = [
    "AccountRegistration",
    "CounterReset",
    "DailyUsageSummary",
    "DailyUsageTotal",
    "FormerTimeZone",
    "Gap",
    "Host",
    "InterfaceReading",
    "LateUsage",
    "Life",
    "LifeReading",
    "MeteringKey",
    "NetworkUsageRecord",
    "Refusal",
    "Sandbox",
    "SettledDays",
    "StorageReading",
    "StorageUsageRecord",
    "StreamCursor",
    "ToldAccount",
    "TouchedDay",
    "UsageCounter",
    "UsageRecord",
    "UsageRow",
]
