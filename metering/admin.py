from __future__ import annotations

from datetime import datetime

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from metering.admin_keys import MeteringKeyAdmin
from metering.admin_usage import DailyUsageSummaryAdmin, DayRows, WithCoverage, WithDays
from metering.meters import GB, UNITS, Meter
from metering.models import (
    AccountRegistration,
    CounterReset,
    FormerTimeZone,
    Gap,
    Host,
    LateUsage,
    Life,
    Refusal,
    Sandbox,
    StreamCursor,
    UsageRow,
)
from metering.pages import Page, ReadOnlyPage, ReadOnlyRows

# Keys and day summaries have files of their own; Django looks for an app's pages here.
__all__ = ["DailyUsageSummaryAdmin", "MeteringKeyAdmin"]

_NO_LIMIT = " (the host's: no limit)"


class CursorRows(ReadOnlyRows[StreamCursor, Host]):
    """How far the host's stream is folded."""

    model = StreamCursor
    fields = (
        "entry_id",
        "sequence",
        "collected_until",
        "folded_at",
        "sample_count",
        "lost_batch_count",
        "problem",
    )


@admin.register(Host)
class HostAdmin(Page[Host]):
    """The machines that are metered, and whether they are."""

    list_display = (
        "name",
        "endpoint",
        "source",
        "is_active",
        "last_seen_at",
        "folded_until",
        "running",
        "problem",
    )
    list_filter = ("is_active", "source", ("problem_since", admin.EmptyFieldListFilter))
    search_fields = ("name", "endpoint", "id")
    list_select_related = ("cursor",)
    fields = (
        "id",
        "name",
        "endpoint",
        "is_active",
        "source",
        "cpu_micro",
        "memory_bytes",
        "gpu_count",
        "registered_at",
        "last_seen_at",
        "storage_read_at",
        "clock_offset_ms",
        "problem",
        "problem_since",
    )
    # An engine that does not tell its devices has them told here.
    readonly_fields = tuple(
        field for field in fields if field not in {"name", "endpoint", "is_active", "gpu_count"}
    )
    inlines = (CursorRows,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return that a host is added by `manage.py add_host`, which names its worker's queue."""
        del request
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        """Return the hosts with the number of lives that run on each."""
        open_lives = Count("lives", filter=Q(lives__ended_at__isnull=True))
        return super().get_queryset(request).annotate(open_lives=open_lives)

    @admin.display(description="folded until", ordering="cursor__collected_until")
    def folded_until(self, host: Host) -> datetime | None:
        """Return the time of the newest pass that usage counts."""
        return host.cursor.collected_until

    @admin.display(description="running", ordering="open_lives")
    def running(self, host: Host) -> int:
        """Return how many sandboxes run there now."""
        return int(getattr(host, "open_lives", 0))


class FormerTimeZoneRows(ReadOnlyRows[FormerTimeZone, AccountRegistration]):
    """The zones that the account's days were of before."""

    model = FormerTimeZone
    fields = ("time_zone", "until")
    ordering = ("until",)


@admin.register(AccountRegistration)
class AccountRegistrationAdmin(WithDays):
    """The accounts whose sandboxes are metered, as billing registered them."""

    list_display = ("account_id", "time_zone", "registered_at", "frozen_until", "is_active")
    list_filter = ("is_active",)
    search_fields = ("account_id",)
    inlines = (FormerTimeZoneRows,)


class LifeRows(ReadOnlyRows[Life, Sandbox]):
    """The sandbox's starts."""

    model = Life
    fields = ("host", "container_id", "started_at", "ended_at", "counts_from_zero")
    ordering = ("-started_at",)
    show_change_link = True


@admin.register(Sandbox)
class SandboxAdmin(WithCoverage):
    """What customers run."""

    list_display = ("sandbox_id", "account", "recorded_at", "running", "coverage")
    list_select_related = ("account",)
    fields = ("sandbox_id", "account", "recorded_at", "interval_s", "coverage", "gaps")
    search_fields = ("sandbox_id", "account__account_id")
    date_hierarchy = "recorded_at"
    inlines = (DayRows, LifeRows)

    def has_change_permission(self, request: HttpRequest, obj: Sandbox | None = None) -> bool:
        """Return whether the user may set how often sandboxes are read; nothing else changes."""
        del obj
        return request.user.has_perm("metering.change_sandbox")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sandbox]:
        """Return the sandboxes with the number of their lives that run."""
        open_lives = Count("lives", filter=Q(lives__ended_at__isnull=True))
        return super().get_queryset(request).annotate(open_lives=open_lives)

    @admin.display(boolean=True, ordering="open_lives")
    def running(self, sandbox: Sandbox) -> bool:
        """Return whether a life of it runs now."""
        return bool(getattr(sandbox, "open_lives", 0))


class GapRows(ReadOnlyRows[Gap, Life]):
    """When the life ran and was not measured."""

    model = Gap
    fields = ("meter", "start", "end", "reason")


class CounterResetRows(ReadOnlyRows[CounterReset, Life]):
    """When a counter of the life fell."""

    model = CounterReset
    fields = ("counter", "at", "before", "after")


@admin.register(Life)
class LifeAdmin(ReadOnlyPage[Life]):
    """Single starts of sandboxes."""

    list_display = (
        "sandbox",
        "host",
        "started_at",
        "ended_at",
        "cpus",
        "memory",
        "gpu_count",
        "counts_from_zero",
        "container",
    )
    list_filter = ("host", ("ended_at", admin.EmptyFieldListFilter), "network_unmetered")
    list_select_related = ("sandbox", "host")
    search_fields = ("sandbox__sandbox_id", "container_id", "sandbox__account__account_id")
    exclude = ("labels",)
    readonly_fields = ("own_labels",)
    inlines = (GapRows, CounterResetRows)

    @admin.display(description="labels")
    def own_labels(self, life: Life) -> str:
        """Return the account's own labels of it, a line each."""
        lines = sorted(life.labels.items())
        return format_html_join(SafeString("<br>"), "{} = {}", lines) or "none"

    @admin.display(description="cpus")
    def cpus(self, life: Life) -> str:
        """Return the cpus it may use, and whether that is a limit of its own."""
        limit = life.cpu_limit_micro
        cpus = (life.host.cpu_micro or 0) if limit is None else limit
        return f"{cpus / 10**6:g}" + (_NO_LIMIT if limit is None else "")

    @admin.display(description="memory GB")
    def memory(self, life: Life) -> str:
        """Return the memory it may use, and whether that is a limit of its own."""
        limit = life.memory_limit_bytes
        memory_bytes = (life.host.memory_bytes or 0) if limit is None else limit
        return f"{memory_bytes / GB:.2f}" + (_NO_LIMIT if limit is None else "")

    @admin.display(description="container")
    def container(self, life: Life) -> str:
        """Return the start of the container's id, as Docker shows it."""
        return life.container_id[:12]


@admin.register(UsageRow)
class UsageAdmin(ReadOnlyPage[UsageRow]):
    """What each life used in each quarter of an hour."""

    list_display = (
        "window_start",
        "sandbox",
        "account",
        "cpu_seconds",
        "memory_gb_seconds",
        "egress_gb",
        "ingress_gb",
        "storage_gb_hours",
        "gpu_seconds",
        "coverage",
        "sample_count",
    )
    list_display_links = None
    list_filter = ("window_start", "life__host")
    list_select_related = ("sandbox",)
    search_fields = ("sandbox__sandbox_id", "sandbox__account__account_id")
    ordering = ("-window_start",)

    @admin.display(ordering="sandbox__account")
    def account(self, row: UsageRow) -> str:
        """Return whose sandbox it is."""
        return str(row.sandbox.account_id)

    @admin.display(description="cpu seconds", ordering="cpu_ns")
    def cpu_seconds(self, row: UsageRow) -> str:
        """Return the cpu time."""
        return _shown(Meter.CPU, row.cpu_ns)

    @admin.display(description="memory GB-seconds", ordering="memory_byte_ms")
    def memory_gb_seconds(self, row: UsageRow) -> str:
        """Return memory times the time it was held."""
        return _shown(Meter.MEMORY, row.memory_byte_ms)

    @admin.display(description="egress GB", ordering="network_tx_bytes")
    def egress_gb(self, row: UsageRow) -> str:
        """Return what was sent."""
        return _shown(Meter.NETWORK_EGRESS, row.network_tx_bytes)

    @admin.display(description="ingress GB", ordering="network_rx_bytes")
    def ingress_gb(self, row: UsageRow) -> str:
        """Return what was received."""
        return _shown(Meter.NETWORK_INGRESS, row.network_rx_bytes)

    @admin.display(description="storage GB-hours", ordering="storage_byte_ms")
    def storage_gb_hours(self, row: UsageRow) -> str:
        """Return what it took up times the time it did."""
        return _shown(Meter.STORAGE, row.storage_byte_ms)

    @admin.display(description="gpu seconds", ordering="gpu_ms")
    def gpu_seconds(self, row: UsageRow) -> str:
        """Return devices held times the time they were."""
        return _shown(Meter.GPU, row.gpu_ms)

    @admin.display(description="coverage")
    def coverage(self, row: UsageRow) -> str:
        """Return the measured part of the running time."""
        if not row.running_ms:
            return "–"
        return f"{100 * row.measured_ms / row.running_ms:.1f} %"


@admin.register(Gap)
class GapAdmin(ReadOnlyPage[Gap]):
    """All time that ran and was not measured."""

    list_display = ("life", "meter", "start", "end", "reason")
    list_filter = ("reason", "meter", "start")
    list_select_related = ("life__sandbox",)
    search_fields = ("life__sandbox__sandbox_id", "life__sandbox__account__account_id")


@admin.register(LateUsage)
class LateUsageAdmin(ReadOnlyPage[LateUsage]):
    """Usage that became known after its window was on an invoice."""

    list_display = ("life", "quantity_name", "window_start", "quantity", "recorded_at")
    list_filter = ("quantity_name", "window_start")
    list_select_related = ("life__sandbox",)
    search_fields = ("life__sandbox__sandbox_id", "life__sandbox__account__account_id")


@admin.register(Refusal)
class RefusalAdmin(ReadOnlyPage[Refusal]):
    """What is not metered, and why."""

    list_display = ("reason", "host", "subject", "detail", "count", "last_at")
    list_filter = ("reason", "host")
    list_select_related = ("host",)
    search_fields = ("subject", "detail")


def _shown(meter: Meter, quantity: int) -> str:
    # For people to compare; the API and invoices carry the exact figure.
    return f"{float(UNITS[meter].shown_quantity(quantity)):,.6f}"
