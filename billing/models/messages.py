"""E-mails, what they were written from, and the budgets that some of them tell of."""

from __future__ import annotations

import uuid
from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Case, F, Func, Q, Value, When

from billing.models.accounts import Account
from billing.models.columns import amount_column

MOST_PERCENT = 1000
TO_BE_SENT = Q(sent_at__isnull=True, given_up_at__isnull=True, handed_over_at__isnull=True) & ~Q(
    recipient=""
)
UNANSWERED = Q(sent_at__isnull=True, given_up_at__isnull=True, handed_over_at__isnull=False)


class MailMessage(models.Model):
    """One e-mail to one address about one thing, word for word as it was written.

    The table is the work list: a sweep writes rows, another sends those that wait.
    """

    class Kind(models.TextChoices):
        INVOICE_READY = "invoice_ready"
        PAYMENT_FAILED = "payment_failed"
        BUDGET_REACHED = "budget_reached"
        BUDGET_CAPPED = "budget_capped"
        BUDGET_CAP_LIFTED = "budget_cap_lifted"
        CREDIT_EXPIRING = "credit_expiring"
        WEBHOOK_DISABLED = "webhook_disabled"
        INVITATION = "invitation"
        ACCOUNT_CLOSING = "account_closing"
        ACCOUNT_CLOSED = "account_closed"
        # What payments writes.
        CONFIRM_PAYMENT = "confirm_payment"
        PAYMENT_RECEIVED = "payment_received"
        ACCOUNT_SUSPENDED = "account_suspended"
        ACCOUNT_RESUMED = "account_resumed"
        INVOICE_WRITTEN_OFF = "invoice_written_off"
        CARD_EXPIRING = "card_expiring"

    class State(models.TextChoices):
        """What became of it, as of a moment; see `state_at`."""

        WAITING = "waiting"
        SENDING = "sending"
        SENT = "sent"
        # It was handed to the mail server, which did not answer: it may have arrived.
        UNSURE = "unsure"
        GIVEN_UP = "given_up"
        # The account had no address when it was written.
        NOBODY = "nobody"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="mail_messages")
    kind = models.CharField(max_length=32, choices=Kind)
    # What it is about: an invoice's number, a transition, a credit grant, a budget's threshold.
    subject_key = models.CharField(max_length=120)
    # As it was when the message was written. Empty: the account had none.
    recipient = models.CharField(max_length=254, blank=True, default="")
    subject = models.CharField(max_length=200)
    text = models.TextField()
    html = models.TextField()
    # Counts up when a person sends once more what was sent: another e-mail, not a repeat.
    copy = models.PositiveSmallIntegerField(default=1)
    created_at = models.DateTimeField()
    # Not before; later after each refusal.
    try_at = models.DateTimeField()
    # Until then it belongs to the worker that has it.
    claimed_until = models.DateTimeField(null=True, blank=True)
    # From here on the mail server may have it, whatever becomes of the worker.
    handed_over_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    last_error = models.TextField(blank=True, default="")
    given_up_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at", "id")
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "subject_key", "recipient"],
                name="message_is_written_once_to_an_address",
            ),
            models.CheckConstraint(
                condition=Q(sent_at__isnull=True)
                | Q(given_up_at__isnull=True, handed_over_at__isnull=False),
                name="sent_message_was_handed_over_and_not_given_up",
            ),
            models.CheckConstraint(
                condition=~Q(recipient="") | Q(handed_over_at__isnull=True),
                name="message_to_nobody_is_not_handed_over",
            ),
        )
        indexes = (
            models.Index(fields=["try_at"], condition=TO_BE_SENT, name="messages_by_turn"),
            models.Index(fields=["created_at"], condition=UNANSWERED, name="messages_unanswered"),
        )

    def __str__(self) -> str:
        return self.subject


def state_at(now: datetime) -> Case:
    """Return the expression of a message's state at `now`."""
    state = MailMessage.State
    return Case(
        When(sent_at__isnull=False, then=Value(state.SENT)),
        When(given_up_at__isnull=False, then=Value(state.GIVEN_UP)),
        When(recipient="", then=Value(state.NOBODY)),
        When(claimed_until__gt=now, then=Value(state.SENDING)),
        When(handed_over_at__isnull=False, then=Value(state.UNSURE)),
        default=Value(state.WAITING),
        output_field=models.CharField(),
    )


class MailCursor(models.Model):
    """Up to when changes of invoices were looked through for what is to be told."""

    source = models.CharField(primary_key=True, max_length=32)
    looked_until = models.DateTimeField()

    def __str__(self) -> str:
        return self.source


class AreAboveZero(Func):
    """Whether every number of an array is above zero."""

    template = "(0 < ALL(%(expressions)s))"
    output_field = models.BooleanField()


def default_thresholds() -> list[int]:
    """Return the percentages of a budget that are told of unless others are chosen."""
    return [50, 80, 100]


class Budget(models.Model):
    """What an account means to spend in a billing period; reaching parts of it is told.

    With a hard cap, reaching all of it has the account's sandboxes stopped.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="budgets")
    name = models.CharField(max_length=100)
    # In the account's currency, compared with the period's total so far.
    amount = amount_column()
    # In percent of the amount.
    thresholds = ArrayField(
        models.PositiveSmallIntegerField(
            validators=[MinValueValidator(1), MaxValueValidator(MOST_PERCENT)]
        ),
        default=default_thresholds,
    )
    # Amounts that are told of too, whatever part of the budget they are.
    alert_amounts = ArrayField(amount_column(), blank=True, default=list)
    # Whether the platform is asked to stop the account's sandboxes when all of it is reached.
    hard_cap = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    # Those left alone longest are looked at first.
    looked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("account", "name")
        constraints = (
            models.UniqueConstraint(
                fields=["account", "name"], name="budgets_of_an_account_have_names_of_their_own"
            ),
            models.CheckConstraint(
                condition=Q(amount__gt=0),
                name="budget_is_above_0",
                violation_error_message="Use an amount above 0.",
            ),
            models.CheckConstraint(
                condition=Q(thresholds__len__gte=1) & Q(AreAboveZero("thresholds")),
                name="budget_has_thresholds_above_0",
                violation_error_message="Give percentages above 0, as in 50,80,100.",
            ),
            models.CheckConstraint(
                condition=Q(alert_amounts__len=0) | Q(AreAboveZero("alert_amounts")),
                name="budget_tells_of_amounts_above_0",
                violation_error_message="Give amounts above 0, as in 100.00,250.00.",
            ),
        )
        indexes = (
            models.Index(
                F("looked_at").asc(nulls_first=True),
                condition=Q(is_active=True),
                name="budgets_by_turn",
            ),
            models.Index(
                fields=["account"],
                condition=Q(is_active=True, hard_cap=True),
                name="budgets_with_hard_caps",
            ),
        )

    def __str__(self) -> str:
        return self.name
