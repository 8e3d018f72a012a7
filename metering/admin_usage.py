"""Pages of what is read from usage records: days, coverage, spikes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from metering.coverage import gaps_by_reason
from metering.meters import UNITS, Meter
from metering.models import AccountRegistration, DailyUsageSummary, Sandbox
from metering.pages import ReadOnlyPage, ReadOnlyRows
from metering.spikes import Spike, find_spikes
from metering.summaries import daily_usage

COVERAGE_DAYS = 30
SPIKE_DAYS = 14
MOST_SPIKES = 200
_HOUR_MS = 3_600_000


def covered(measured_ms: int | None, running_ms: int | None) -> str:
    """Return the measured part of the running time for people, a dash where nothing ran."""
    if not running_ms:
        return "–"
    # Rounded down: only what was measured whole is 100 %.
    return f"{1000 * (measured_ms or 0) // running_ms / 10:.1f} %"


def shown(meter: Meter, quantity: int) -> str:
    """Return a quantity for people to compare; the API and invoices carry the exact figure."""
    return f"{float(UNITS[meter].shown_quantity(int(quantity))):,.3f}"


def _today() -> date:
    return datetime.now(UTC).date()


class DayRows(ReadOnlyRows[DailyUsageSummary, Sandbox]):
    """The sandbox's last days, and how much of each was measured."""

    model = DailyUsageSummary
    fields = ("day", "running_hours", "coverage", "life_count")
    readonly_fields = ("running_hours", "coverage")
    ordering = ("-day",)
    hide_title = True
    verbose_name_plural = f"days (the last {COVERAGE_DAYS})"

    def get_queryset(self, request: HttpRequest) -> QuerySet[DailyUsageSummary]:
        """Return the days that are shown."""
        since = _today() - timedelta(days=COVERAGE_DAYS)
        return super().get_queryset(request).filter(day__gte=since)

    @admin.display(description="running hours")
    def running_hours(self, row: DailyUsageSummary) -> str:
        """Return how long it ran."""
        return f"{row.running_ms / _HOUR_MS:,.2f}"

    @admin.display
    def coverage(self, row: DailyUsageSummary) -> str:
        """Return the measured part of the running time."""
        return covered(row.measured_ms, row.running_ms)


class WithCoverage(ReadOnlyPage[Sandbox]):
    """Coverage and gaps on the pages of sandboxes."""

    readonly_fields = ("sandbox_id", "account", "recorded_at", "coverage", "gaps")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Sandbox]:
        """Return the sandboxes with their running and measured time of the last days."""
        days = (
            DailyUsageSummary.objects.filter(
                sandbox=OuterRef("pk"), day__gte=_today() - timedelta(days=COVERAGE_DAYS)
            )
            .order_by()
            .values("sandbox")
        )
        return (
            super()
            .get_queryset(request)
            .annotate(
                running_ms=Subquery(days.annotate(sum=Sum("running_ms")).values("sum")),
                measured_ms=Subquery(days.annotate(sum=Sum("measured_ms")).values("sum")),
            )
        )

    @admin.display(description=f"coverage ({COVERAGE_DAYS} days)")
    def coverage(self, sandbox: Sandbox) -> str:
        """Return the measured part of the running time of the last days."""
        return covered(getattr(sandbox, "measured_ms", 0), getattr(sandbox, "running_ms", 0))

    @admin.display(description="gaps by reason")
    def gaps(self, sandbox: Sandbox) -> str:
        """Return how many gaps there are, and how long, the longest in all first."""
        lines = [
            (row.reason, row.meter, row.count, f"{row.total.total_seconds():,.1f}")
            for row in gaps_by_reason(sandbox)
        ]
        return format_html_join(SafeString("<br>"), "{}, {}: {} of {} s in all", lines) or "none"


class WithDays(ReadOnlyPage[AccountRegistration]):
    """The last days on the pages of accounts."""

    readonly_fields = ("days",)

    @admin.display(description=f"last {SPIKE_DAYS} days")
    def days(self, account: AccountRegistration) -> str:
        """Return what ran on each day and how much of it was measured, the newest first."""
        today = _today()
        lines = [
            (
                day.day,
                day.sandboxes,
                f"{day.running_ms / _HOUR_MS:,.2f}",
                covered(day.measured_ms, day.running_ms),
            )
            for day in daily_usage(account.pk, today - timedelta(days=SPIKE_DAYS - 1), today)[::-1]
        ]
        line = "{}: {} sandboxes, {} hours, coverage {}"
        return format_html_join(SafeString("<br>"), line, lines) or "nothing ran"


@admin.register(DailyUsageSummary)
class DailyUsageSummaryAdmin(ReadOnlyPage[DailyUsageSummary]):
    """What each sandbox used on each local day of its account."""

    list_display = (
        "day",
        "sandbox",
        "coverage",
        "life_count",
        "cpu_seconds",
        "memory_gb_seconds",
        "egress_gb",
        "account",
    )
    list_filter = ("day",)
    list_select_related = ("sandbox",)
    search_fields = ("sandbox__sandbox_id", "account__account_id")
    ordering = ("-day", "account", "sandbox")
    list_before_template = "admin/metering/link_to_spikes.html"

    def get_urls(self) -> list[URLPattern]:
        """Return the table's pages, and that of the spikes."""
        spikes = path(
            "spikes/",
            self.admin_site.admin_view(self.show_spikes),
            name="metering_dailyusagesummary_spikes",
        )
        return [spikes, *super().get_urls()]

    def show_spikes(self, request: HttpRequest) -> HttpResponse:
        """Return the page of the last days' spikes, of one meter if the query names it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("meter", "")
        meter = Meter(asked) if asked in set(Meter) else None
        today = _today()
        spikes = find_spikes(today - timedelta(days=SPIKE_DAYS - 1), today, meter=meter)
        context = self.admin_site.each_context(request) | {
            "title": f"Spikes of the last {SPIKE_DAYS} days",
            "meters": list(Meter),
            "meter": meter,
            "left_out": max(len(spikes) - MOST_SPIKES, 0),
            "table": {
                "headers": ["score", "day", "account", "meter", "used", "expected", "ratio"],
                "rows": [_row(spike) for spike in spikes[:MOST_SPIKES]],
            },
        }
        return TemplateResponse(request, "admin/metering/spikes.html", context)

    @admin.display(description="cpu seconds", ordering="cpu_ns")
    def cpu_seconds(self, row: DailyUsageSummary) -> str:
        """Return the cpu time."""
        return shown(Meter.CPU, row.cpu_ns)

    @admin.display(description="memory GB-seconds", ordering="memory_byte_ms")
    def memory_gb_seconds(self, row: DailyUsageSummary) -> str:
        """Return memory times the time it was held."""
        return shown(Meter.MEMORY, row.memory_byte_ms)

    @admin.display(description="egress GB", ordering="network_tx_bytes")
    def egress_gb(self, row: DailyUsageSummary) -> str:
        """Return what was sent."""
        return shown(Meter.NETWORK_EGRESS, row.network_tx_bytes)

    @admin.display
    def coverage(self, row: DailyUsageSummary) -> str:
        """Return the measured part of the running time."""
        return covered(row.measured_ms, row.running_ms)


def _row(spike: Spike) -> list[str]:
    unit, excess = UNITS[spike.meter], spike.excess
    expected = f"{float(excess.expected / unit.size):,.3f}"
    return [
        f"{float(excess.score):.1f}",
        str(spike.day),
        _link(spike.account_id, spike.day),
        spike.meter,
        f"{shown(spike.meter, excess.value)} {unit.shown}",
        expected,
        "–" if excess.ratio is None else f"{float(excess.ratio):.1f}",
    ]


def _link(account_id: UUID, day: date) -> str:
    days = reverse("admin:metering_dailyusagesummary_changelist")
    return format_html(
        '<a class="text-primary-600" href="{}?q={}&day={}">{}</a>',
        days,
        account_id,
        day,
        account_id,
    )
