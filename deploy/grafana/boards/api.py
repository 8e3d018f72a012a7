"""Whether the web processes answer, how soon, and with how many errors."""

from __future__ import annotations

from boards.panels import Board, Choice, Panel, Query, Row

_UP = '{job="soulbox",instance=~"$instance"}'
_HERE = 'instance=~"$instance"'
_RESPONSES = "django_http_responses_total_by_status_view_method_total"
_LATENCY = "django_http_requests_latency_seconds_by_view_method_bucket"


def _rate(series: str, *matchers: str) -> str:
    return f"rate({series}{{{','.join((_HERE, *matchers))}}}[$__rate_interval])"


def _share(part: str, whole: str) -> str:
    """Return the query of a share; where nothing of the part was counted yet, it is zero."""
    return f"(sum({part}) or vector(0)) / sum({whole})"


def _quantile(share: float, series: str, *labels: str) -> str:
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *labels))}) ({series}))"


BOARD = Board(
    name="api",
    title="SoulBox: API",
    description="Whether the web processes answer, how soon, and with how many errors.",
    choices=[Choice("instance", "Process", 'up{job="soulbox"}', "instance")],
    items=[
        Panel(
            "Processes that answer",
            "Web processes that answer the monitor, of all that it knows.",
            "percentunit",
            (Query('avg(up{job="soulbox"})', "answer"),),
            kind="stat",
            width=6,
            limits=(0.5, 1),
            is_low_bad=True,
            alert="WebDown",
            most=1,
        ),
        Panel(
            "Requests a second",
            "Of people, programs and Stripe. Those of the monitor and of probes are left out.",
            "reqps",
            (Query(f"sum({_rate(_RESPONSES)})", "requests"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Requests that failed here",
            "Share of the answers that say an error of ours: 5xx.",
            "percentunit",
            (Query(_share(_rate(_RESPONSES, 'status=~"5.."'), _rate(_RESPONSES)), "failed"),),
            kind="stat",
            width=6,
            limits=(0.001, 0.01),
            most=1,
        ),
        Panel(
            "Time of an answer, 95 of 100",
            "Nineteen of twenty answers of all views took at most this.",
            "s",
            (Query(_quantile(0.95, _rate(_LATENCY)), "95 of 100"),),
            kind="stat",
            width=6,
            limits=(0.25, 1),
        ),
        Row("Requests"),
        Panel(
            "Answers by status",
            "Answers a second by their status.",
            "reqps",
            (Query(f"sum by (status) ({_rate(_RESPONSES)})", "{{status}}"),),
            is_stacked=True,
        ),
        Panel(
            "Time of an answer",
            "Half, and nineteen of twenty, of all answers took at most this.",
            "s",
            (
                Query(_quantile(0.5, _rate(_LATENCY)), "median"),
                Query(_quantile(0.95, _rate(_LATENCY)), "95 of 100"),
            ),
            limits=(0.25, 1),
        ),
        Panel(
            "Busiest views",
            "The ten views that are asked for most, by requests a second.",
            "reqps",
            (Query(f"topk(10, sum by (view) ({_rate(_RESPONSES)}))", "{{view}}"),),
            kind="bargauge",
        ),
        Panel(
            "Slowest views, 95 of 100",
            "The ten views whose slowest twentieth takes longest.",
            "s",
            (Query(f"topk(10, {_quantile(0.95, _rate(_LATENCY), 'view')})", "{{view}}"),),
            kind="bargauge",
            limits=(0.25, 1),
        ),
        Row("Database"),
        Panel(
            "Statements a second",
            "Statements that web processes send to PostgreSQL, those of the monitor's looks too, "
            "and those that failed.",
            "ops",
            (
                Query(f"sum({_rate('django_db_execute_total')})", "statements"),
                Query(f"sum({_rate('django_db_errors_total')}) or vector(0)", "failed"),
            ),
            width=24,
        ),
        Row("Looks of the monitor"),
        Panel(
            "Time a look takes",
            "How long each process took to answer /metrics. Under half a second with 100,000 "
            "accounts; at ten seconds the monitor gives up.",
            "s",
            (Query(f"scrape_duration_seconds{_UP}", "{{instance}}"),),
            limits=(0.5, 5),
            alert="ScrapeSlow",
        ),
        Panel(
            "Figures of a look",
            "How many figures a look brings. They have a bound, whatever the number of accounts.",
            "short",
            (Query(f"scrape_samples_scraped{_UP}", "{{instance}}"),),
        ),
    ],
)
