"""What happens when an invoice is not paid: the schedule, where each stands, the platform."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from billing.models import Account, Invoice


class DunningStep(models.Model):
    """What is done so many days after an invoice's first failed payment. Staff change the rows."""

    class Action(models.TextChoices):
        RETRY = "retry"
        # Ask the platform to stop the account's sandboxes.
        SUSPEND = "suspend"
        # Nobody collects it any more.
        WRITE_OFF = "write_off"

    after_days = models.PositiveSmallIntegerField()
    action = models.CharField(max_length=16, choices=Action)

    class Meta:
        ordering = ("after_days", "action")
        constraints = (
            models.UniqueConstraint(
                fields=["after_days", "action"], name="dunning_step_is_in_the_schedule_once"
            ),
            models.CheckConstraint(
                condition=Q(after_days__gte=1, after_days__lte=365),
                name="dunning_step_is_a_day_to_a_year_later",
                violation_error_message="Use 1 to 365 days.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_action_display()} after {self.after_days} days"


class DunningCase(models.Model):
    """An invoice whose payment failed, from the first failure until it is paid or given up."""

    class Ending(models.TextChoices):
        PAID = "paid"
        WRITTEN_OFF = "written_off"
        VOID = "void"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="dunning_cases")
    # The schedule counts from here.
    opened_at = models.DateTimeField()
    # The last step that was taken, or left out; those before it in the schedule are over.
    done_days = models.PositiveSmallIntegerField(default=0)
    done_action = models.CharField(
        max_length=16, choices=DunningStep.Action, blank=True, default=""
    )
    # When the next step is due. Empty: none is left.
    next_at = models.DateTimeField(null=True, blank=True)
    # The schedule that the next step was found by; with another it is found anew.
    planned_by = models.CharField(max_length=64, blank=True, default="")
    # The account was suspended while it was open. It stays so until this invoice is paid too.
    suspended_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    ending = models.CharField(max_length=16, choices=Ending, blank=True, default="")

    class Meta:
        ordering = ("next_at", "id")
        constraints = (
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(closed_at__isnull=True),
                name="invoice_has_one_open_dunning_case",
            ),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True, ending="")
                | (Q(closed_at__isnull=False, next_at__isnull=True) & ~Q(ending="")),
                name="closed_dunning_case_says_how",
            ),
        )
        indexes = (
            models.Index(
                fields=["next_at"],
                condition=Q(closed_at__isnull=True),
                name="dunning_cases_by_turn",
            ),
        )

    def __str__(self) -> str:
        return f"Dunning of {self.invoice}"


class PlatformRequest(models.Model):
    """What the platform is asked to do with an account's sandboxes, until it has said yes."""

    class Action(models.TextChoices):
        STOP = "stop"
        RESUME = "resume"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="platform_requests")
    action = models.CharField(max_length=16, choices=Action)
    reason = models.CharField(max_length=200)
    requested_at = models.DateTimeField()
    # The platform answered that it has it. Empty: asked again, later after each failure.
    accepted_at = models.DateTimeField(null=True, blank=True)
    # A later request took its place before it was accepted.
    replaced_at = models.DateTimeField(null=True, blank=True)
    tries = models.PositiveSmallIntegerField(default=0)
    try_at = models.DateTimeField()
    claimed_until = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(accepted_at__isnull=True, replaced_at__isnull=True),
                name="platform_is_asked_one_thing_of_an_account",
            ),
        )
        indexes = (
            models.Index(
                fields=["try_at"],
                condition=Q(accepted_at__isnull=True, replaced_at__isnull=True),
                name="platform_requests_by_turn",
            ),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.account}"
