"""What a user or the clock can do to money. Other apps call these and nothing below."""

from billing.conservation import NotConservedError
from billing.services.accounts import (
    AccountRefusedError,
    UnknownCurrencyError,
    UnknownTimeZoneError,
    change_cycle,
    is_time_zone,
    lock_account,
    open_account,
    park_account,
    unpark_account,
)
from billing.services.api_keys import (
    ApiKeyRefusedError,
    IssuedApiKey,
    NoSuchApiKeyError,
    authenticate_api_key,
    issue_api_key,
    revoke_api_key,
    rotate_api_key,
)
from billing.services.billing_run import (
    draft_due_invoices,
    finalise_due_invoices,
    generate_invoices,
    rehearse_invoices,
)
from billing.services.budgets import tell_reached_budgets
from billing.services.bulk_credits import (
    BulkRefusedError,
    GrantPlan,
    PlannedGrant,
    grant_in_bulk,
    plan_grants,
)
from billing.services.conservation import check_conservation
from billing.services.corrections import (
    Author,
    CorrectionRefusedError,
    needs_approval,
    reject_correction,
)
from billing.services.credit_notes import credit_amount, credit_in_full, credit_lines
from billing.services.credit_use import take_prepaid, use_credit
from billing.services.credits import (
    ByHand,
    CreditRefusedError,
    Gift,
    grant_credit,
    grant_monthly_credits,
    revoke_credit,
)
from billing.services.desk import add_up_desk
from billing.services.finalising import InvoiceNotReadyError, UsageUnpricedError
from billing.services.idempotency import forget_old_calls
from billing.services.invitations import (
    InvitationRefusedError,
    NoSuchInvitationError,
    accept_as_new_user,
    accept_invitation,
    find_invitation,
    invitations_of,
    invite,
    open_invitations,
    withdraw_invitation,
)
from billing.services.invoice_files import (
    RenderedInvoice,
    credit_note_file,
    invoice_file,
    invoice_pdf,
    keep_invoice_days,
)
from billing.services.invoices import (
    PeriodNotOpenError,
    draft_current_period,
    draft_invoice,
    finalise_invoice,
    reissue_invoice,
)
from billing.services.lifecycle import (
    Because,
    VoidGuard,
    mark_paid,
    mark_payment_failed,
    register_void_guard,
    retry_payment,
    void_invoice,
    write_off,
)
from billing.services.mail import (
    MessageRefusedError,
    give_up_old_messages,
    send_again,
    send_invoice,
    send_next_message,
)
from billing.services.members import (
    Actor,
    LastOwnerError,
    MemberRefusedError,
    RoleTooHighError,
    change_role,
    members_of,
    remove_member,
)
from billing.services.messages import write_due_messages
from billing.services.operator_keys import (
    IssuedOperatorKey,
    OperatorKeyRefusedError,
    authenticate_operator_key,
    issue_operator_key,
    revoke_operator_key,
)
from billing.services.other_invoices import (
    FeeConflictError,
    MirroredInvoice,
    MirroredLine,
    MirrorRefusedError,
    mirror_invoice,
)
from billing.services.outgoing import Happening, emit_event, emit_events
from billing.services.outgoing_invoices import write_invoice_events
from billing.services.outgoing_retention import forget_old_events
from billing.services.plan_preview import (
    PlanChange,
    ProrationLine,
    preview_plan_change,
)
from billing.services.prices import PriceBookRefusedError, copy_book, start_version
from billing.services.provider_fees import give_back_unused_fees
from billing.services.provider_periods import (
    ProviderPeriodRefusedError,
    ProviderPeriodTooLateError,
    take_provider_period,
)
from billing.services.rerating import approve_correction, difference_of, rerate
from billing.services.run_reports import RunReport, Scope, is_month
from billing.services.safety import SafetyBoundError, accept_amount
from billing.services.stalled import end_stalled_sessions
from billing.services.subscriptions import (
    cancel_subscription,
    cancel_subscription_now,
    change_plan_at_end,
    choose_plan,
    resume_subscription,
    subscribe,
)
from billing.services.sweeps import (
    expire_due_credits,
    grant_due_credits,
    request_due_top_ups,
)
from billing.services.terms import AgreedTerms, SubscriptionRefusedError
from billing.services.top_ups import (
    TopUpRefusedError,
    give_up_top_up,
    grant_top_up,
    request_top_up,
    set_automatic_top_up,
)
from billing.services.unbilled import note_unbilled_late_usage
from billing.services.unpriced import note_unpriced_usage
from billing.services.webhook_endpoints import (
    EndpointChange,
    IssuedEndpoint,
    WebhookRefusedError,
    add_endpoint,
    change_endpoint,
    ping_endpoint,
    redeliver,
    refuse_url,
    remove_endpoint,
    rotate_secret,
)
from billing.services.webhook_sending import send_due_webhooks

__all__ = [
    "AccountRefusedError",
    "Actor",
    "AgreedTerms",
    "ApiKeyRefusedError",
    "Author",
    "Because",
    "BulkRefusedError",
    "ByHand",
    "CorrectionRefusedError",
    "CreditRefusedError",
    "EndpointChange",
    "FeeConflictError",
    "Gift",
    "GrantPlan",
    "Happening",
    "InvitationRefusedError",
    "InvoiceNotReadyError",
    "IssuedApiKey",
    "IssuedEndpoint",
    "IssuedOperatorKey",
    "LastOwnerError",
    "MemberRefusedError",
    "MessageRefusedError",
    "MirrorRefusedError",
    "MirroredInvoice",
    "MirroredLine",
    "NoSuchApiKeyError",
    "NoSuchInvitationError",
    "NotConservedError",
    "OperatorKeyRefusedError",
    "PeriodNotOpenError",
    "PlanChange",
    "PlannedGrant",
    "PriceBookRefusedError",
    "ProrationLine",
    "ProviderPeriodRefusedError",
    "ProviderPeriodTooLateError",
    "RenderedInvoice",
    "RoleTooHighError",
    "RunReport",
    "SafetyBoundError",
    "Scope",
    "SubscriptionRefusedError",
    "TopUpRefusedError",
    "UnknownCurrencyError",
    "UnknownTimeZoneError",
    "UsageUnpricedError",
    "VoidGuard",
    "WebhookRefusedError",
    "accept_amount",
    "accept_as_new_user",
    "accept_invitation",
    "add_endpoint",
    "add_up_desk",
    "approve_correction",
    "authenticate_api_key",
    "authenticate_operator_key",
    "cancel_subscription",
    "cancel_subscription_now",
    "change_cycle",
    "change_endpoint",
    "change_plan_at_end",
    "change_role",
    "check_conservation",
    "choose_plan",
    "copy_book",
    "credit_amount",
    "credit_in_full",
    "credit_lines",
    "credit_note_file",
    "difference_of",
    "draft_current_period",
    "draft_due_invoices",
    "draft_invoice",
    "emit_event",
    "emit_events",
    "end_stalled_sessions",
    "expire_due_credits",
    "finalise_due_invoices",
    "finalise_invoice",
    "find_invitation",
    "forget_old_calls",
    "forget_old_events",
    "generate_invoices",
    "give_back_unused_fees",
    "give_up_old_messages",
    "give_up_top_up",
    "grant_credit",
    "grant_due_credits",
    "grant_in_bulk",
    "grant_monthly_credits",
    "grant_top_up",
    "invitations_of",
    "invite",
    "invoice_file",
    "invoice_pdf",
    "is_month",
    "is_time_zone",
    "issue_api_key",
    "issue_operator_key",
    "keep_invoice_days",
    "lock_account",
    "mark_paid",
    "mark_payment_failed",
    "members_of",
    "mirror_invoice",
    "needs_approval",
    "note_unbilled_late_usage",
    "note_unpriced_usage",
    "open_account",
    "open_invitations",
    "park_account",
    "ping_endpoint",
    "plan_grants",
    "preview_plan_change",
    "redeliver",
    "refuse_url",
    "register_void_guard",
    "rehearse_invoices",
    "reissue_invoice",
    "reject_correction",
    "remove_endpoint",
    "remove_member",
    "request_due_top_ups",
    "request_top_up",
    "rerate",
    "resume_subscription",
    "retry_payment",
    "revoke_api_key",
    "revoke_credit",
    "revoke_operator_key",
    "rotate_api_key",
    "rotate_secret",
    "send_again",
    "send_due_webhooks",
    "send_invoice",
    "send_next_message",
    "set_automatic_top_up",
    "start_version",
    "subscribe",
    "take_prepaid",
    "take_provider_period",
    "tell_reached_budgets",
    "unpark_account",
    "use_credit",
    "void_invoice",
    "withdraw_invitation",
    "write_due_messages",
    "write_invoice_events",
    "write_off",
]
