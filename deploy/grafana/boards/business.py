"""What is used, what is invoiced, and whether anything that should be is not."""

from __future__ import annotations

from boards.panels import Board, Choice, Panel, Query, Row, told

_BUCKETS = told("soulbox_billing_amount_bucket", "type", "currency", "le")
_AMOUNTS = f"sum by (currency, le) ({_BUCKETS})"


def _usage(how: str, time: str) -> str:
    """Return the query of how much the chosen resources were used, by account."""
    series = 'soulbox_usage_total{resource_type=~"$resource"}'
    return told(f"{how}({series}[{time}])", "resource_type", "account_id")


def _by_reason(series: str) -> str:
    return f"sum by (reason) ({told(series, 'meter', 'reason')})"


BOARD = Board(
    name="business",
    title="SoulBox: business",
    description="What is used and invoiced, whether billing is on time, and whether it adds up.",
    choices=[Choice("resource", "Resource", "soulbox_usage_total", "resource_type")],
    items=[
        Panel(
            "Running sandboxes",
            "Sandboxes that run on all hosts.",
            "short",
            (Query(f"sum({told('soulbox_host_running_sandboxes', 'host')})", "running"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Accounts due",
            "Accounts whose period is over and not closed, or whose draft is ready.",
            "short",
            (Query(told("soulbox_accounts_due"), "due"),),
            kind="stat",
            width=6,
            alert="BillingLate",
        ),
        Panel(
            "Accounts parked",
            "Billing failed for them, and leaves them alone until a person has looked.",
            "short",
            (Query(told("soulbox_parked_accounts"), "parked"),),
            kind="stat",
            width=6,
            limits=(1, 6),
            alert="AccountParked",
        ),
        Panel(
            "Invoices that do not add up",
            "Final invoices in which a sum, from counters to the amount due, is not the next one.",
            "short",
            (Query(told("soulbox_invoice_mismatches"), "invoices"),),
            kind="stat",
            width=6,
            limits=(1,),
            alert="ConservationBroken",
        ),
        Row("Usage"),
        Panel(
            "Usage a second",
            "What all sandboxes use, in the units of the prices.",
            "short",
            (
                Query(
                    f"sum by (resource_type) ({_usage('rate', '$__rate_interval')})",
                    "{{resource_type}}",
                ),
            ),
            alert="HighUsageSpike",
        ),
        Panel(
            "Accounts that use the most",
            "The ten of each resource that used the most within the hour; `other` are all those "
            "that are not told apart.",
            "short",
            (
                Query(
                    f"topk by (resource_type) (10, {_usage('increase', '1h')})",
                    "{{resource_type}} {{account_id}}",
                ),
            ),
            kind="table",
            alert="HighUsageSpike",
        ),
        Panel(
            "Running sandboxes by account",
            "The ten accounts with the most sandboxes that run; `other` are all not told apart.",
            "short",
            (
                Query(
                    f"topk(10, {told('soulbox_active_sandboxes', 'account_id')})",
                    "{{account_id}}",
                ),
            ),
            kind="bargauge",
        ),
        Panel(
            "Credit that lapses soon",
            "Credit that is left and lapses within so many days. Currencies do not add up.",
            "short",
            (
                Query(
                    told("soulbox_credits_expiring", "currency", "days"),
                    "{{currency}}, {{days}} days",
                ),
            ),
            kind="bargauge",
        ),
        Row("Invoices"),
        Panel(
            "Invoices a day",
            "Invoices that became final within the last day, by their kind and currency.",
            "short",
            (
                Query(
                    "max by (type, currency) (increase(soulbox_billing_amount_count[1d]))",
                    "{{type}} {{currency}}",
                ),
            ),
            alert="BillingLate",
        ),
        Panel(
            "Amounts of invoices a day",
            "What those ask for. Currencies do not add up.",
            "short",
            (
                Query(
                    "max by (type, currency) (increase(soulbox_billing_amount_sum[1d]))",
                    "{{type}} {{currency}}",
                ),
            ),
            least=None,
        ),
        Panel(
            "Amount of an invoice, median and 95 of 100",
            "Over all invoices that became final so far.",
            "short",
            (
                Query(
                    f"histogram_quantile(0.5, {_AMOUNTS})",
                    "median, {{currency}}",
                ),
                Query(
                    f"histogram_quantile(0.95, {_AMOUNTS})",
                    "95 of 100, {{currency}}",
                ),
            ),
        ),
        Panel(
            "Invoices that could not be made",
            "How often billing failed for an account within the hour, and parked it.",
            "short",
            (Query(told("increase(soulbox_invoice_generation_errors_total[1h])"), "errors"),),
            limits=(1, 5),
            alert="InvoiceGenerationFailed",
        ),
        Row("Is anything not billed"),
        Panel(
            "How late billing is",
            "For how long the account that waits longest has been due, and the age of the oldest "
            "usage that is on no final invoice.",
            "s",
            (
                Query(told("soulbox_billing_due_seconds"), "longest due"),
                Query(told("soulbox_oldest_unrated_window_seconds"), "oldest usage not invoiced"),
            ),
            alert="BillingLate",
        ),
        Panel(
            "Usage that nobody is charged for",
            "Accounts with usage in an open period that has no price, or that came too late for "
            "every invoice. `meter_not_charged` is as the price book has it.",
            "short",
            (
                Query(
                    _by_reason("soulbox_unpriced_usage_accounts"),
                    "no price: {{reason}}",
                ),
                Query(
                    _by_reason("soulbox_unbilled_late_usage_accounts"),
                    "late: {{reason}}",
                ),
            ),
            alert="UnderBilling",
        ),
    ],
)
