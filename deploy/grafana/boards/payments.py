"""Whether the money that is asked for comes in, and Stripe says the same as we do."""

from __future__ import annotations

from boards.panels import Board, Choice, Panel, Query, Row, told

BOARD = Board(
    name="payments",
    title="SoulBox: payments",
    description="Whether payments succeed, what waits for an answer, and whether both sides agree.",
    choices=[Choice("currency", "Currency", "soulbox_payments_balance", "currency")],
    items=[
        Panel(
            "Payments that succeed",
            "Share of the attempts that ended within each period that succeeded.",
            "percentunit",
            (Query(told("soulbox_payment_success_rate", "period"), "{{period}}"),),
            kind="stat",
            width=6,
            limits=(0.95, 0.98),
            is_low_bad=True,
            alert="HighPaymentFailureRate",
            most=1,
        ),
        Panel(
            "Attempts without an answer",
            "Nobody knows whether money moved. They are asked after, and nothing is charged twice.",
            "short",
            (Query(told("soulbox_payment_attempts_unknown"), "unknown"),),
            kind="stat",
            width=6,
            limits=(1,),
            alert="PaymentUnknown",
        ),
        Panel(
            "Differences with Stripe",
            "Open differences between Stripe's side and ours, of all kinds.",
            "short",
            (Query(f"sum({told('soulbox_payment_differences', 'kind')})", "differences"),),
            kind="stat",
            width=6,
            limits=(1,),
            alert="StripeDifference",
        ),
        Panel(
            "Events given up",
            "Events of Stripe that failed for two days, and wait for a person.",
            "short",
            (Query(told('soulbox_webhook_events{status="failed"}'), "given up"),),
            kind="stat",
            width=6,
            limits=(1,),
            alert="WebhookFailed",
        ),
        Row("Attempts"),
        Panel(
            "How attempts ended",
            "Attempts of the last 24 hours, by how they ended.",
            "short",
            (Query(told("soulbox_payment_attempts_ended", "status"), "{{status}}"),),
            is_stacked=True,
            alert="HighPaymentFailureRate",
        ),
        Panel(
            "Why attempts failed",
            "Attempts of the last 24 hours that failed, by the bank's or the provider's code.",
            "short",
            (Query(told("soulbox_payment_attempts_failed", "code"), "{{code}}"),),
            kind="bargauge",
            alert="HighPaymentFailureRate",
        ),
        Row("What waits"),
        Panel(
            "Collections",
            "Collections under way, and those that Stripe refused and a person has to look at.",
            "short",
            (Query(told("soulbox_collections", "status"), "{{status}}"),),
        ),
        Panel(
            "What is overdue",
            "For how long a collection's next step, and the oldest event of Stripe, have waited.",
            "s",
            (
                Query(told("soulbox_collection_step_due_seconds"), "step of a collection"),
                Query(told("soulbox_webhook_event_waiting_seconds"), "event of Stripe"),
            ),
            limits=(60, 300),
            alert="CollectionLate",
        ),
        Panel(
            "Events of Stripe",
            "Events that wait to be applied, and those that were given up.",
            "short",
            (Query(told("soulbox_webhook_events", "status"), "{{status}}"),),
            alert="WebhookLag",
        ),
        Panel(
            "Refunds that wait",
            "For a second person, to be sent, or at the provider.",
            "short",
            (Query(told("soulbox_refunds_waiting", "status"), "{{status}}"),),
        ),
        Row("Who does not pay, and what is here"),
        Panel(
            "Arrears",
            "Accounts past due and suspended, invoices that are dunned, and requests to stop or "
            "resume sandboxes that the platform has not accepted.",
            "short",
            (
                Query(told("soulbox_accounts_in_arrears", "standing"), "accounts {{standing}}"),
                Query(told("soulbox_dunning_cases"), "invoices dunned"),
                Query(told("soulbox_platform_requests_waiting"), "requests to the platform"),
            ),
        ),
        Panel(
            "Differences by kind",
            "What Stripe and we do not agree on.",
            "short",
            (Query(told("soulbox_payment_differences", "kind"), "{{kind}}"),),
            kind="bargauge",
            limits=(1,),
            alert="StripeDifference",
        ),
        Panel(
            "Balance",
            "What came through Stripe and is still here, before its fees, by currency.",
            "short",
            (
                Query(
                    told('soulbox_payments_balance{currency=~"$currency"}', "currency"),
                    "{{currency}}",
                ),
            ),
            width=24,
            least=None,
        ),
    ],
)
