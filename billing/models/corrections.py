"""What an invoice says about earlier periods, and the late usage that it settles."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.adjustments import Unbilled
from billing.models.accounts import Account
from billing.models.credit_notes import COMPONENTS, METERS, CorrectionLine
from billing.models.credits import CreditGrant
from billing.models.invoice_lines import InvoiceLine
from billing.models.invoices import Invoice
from billing.rating import Unpriced


class InvoiceAdjustment(models.Model):
    """What an adjustment line is about: a part of an earlier billing period. Frozen with it."""

    line = models.OneToOneField(InvoiceLine, on_delete=models.CASCADE, related_name="adjustment")
    component = models.CharField(max_length=16, choices=COMPONENTS)
    # The billing period; the line's own span may be a part of it.
    billing_period_start = models.DateTimeField()
    billing_period_end = models.DateTimeField()
    # Of credit: the grant that pays, or that has something back.
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, null=True, blank=True)
    # The line of a correction that was decided on and waited for this invoice. A void invoice
    # lets it wait again.
    correction_line = models.ForeignKey(
        CorrectionLine,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="adjustments",
    )

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                condition=Q(billing_period_end__gt=F("billing_period_start")),
                name="adjusted_period_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(component="credit", grant__isnull=False)
                | (~Q(component="credit") & Q(grant__isnull=True)),
                name="adjustment_of_credit_names_the_grant",
            ),
        )

    def __str__(self) -> str:
        return f"{self.component} of {self.billing_period_start:%Y-%m-%d}"


class BilledLateUsage(models.Model):
    """Late usage of one life in one window that an invoice's adjustment lines settle.

    What is still to be billed is what metering knows by now less the sum of these rows of
    invoices that are final and not void. Frozen with the invoice.
    """

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="billed_late_usage")
    meter = models.CharField(max_length=32, choices=METERS)
    sandbox_id = models.CharField(max_length=128)
    # Metering's own key, kept for longer than its row may be.
    life_id = models.BigIntegerField()
    window_start = models.DateTimeField()
    # Base units; negative where the window's record held too much.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)

    class Meta:
        ordering = ("window_start", "id")
        verbose_name_plural = "billed late usage"
        constraints = (
            models.UniqueConstraint(
                fields=["invoice", "life_id", "meter", "window_start"],
                name="invoice_settles_late_usage_of_a_window_once",
            ),
            models.CheckConstraint(
                condition=~Q(quantity=0), name="billed_late_usage_is_not_nothing"
            ),
        )

    def __str__(self) -> str:
        return f"{self.meter} of {self.sandbox_id} at {self.window_start:%Y-%m-%d %H:%M}"


class UnbilledLateUsage(models.Model):
    """Late usage that no invoice can ask for, and why, as of the last look. Replaced each time."""

    account = models.ForeignKey(
        Account, on_delete=models.CASCADE, related_name="unbilled_late_usage"
    )
    billing_period_start = models.DateTimeField()
    billing_period_end = models.DateTimeField()
    meter = models.CharField(max_length=32, choices=METERS)
    reason = models.CharField(
        max_length=32, choices=[(why.value, why.value) for why in (*Unbilled, *Unpriced)]
    )
    # Base units.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    noted_at = models.DateTimeField()

    class Meta:
        ordering = ("-billing_period_start", "meter")
        verbose_name_plural = "unbilled late usage"
        constraints = (
            models.UniqueConstraint(
                fields=["account", "billing_period_start", "meter", "reason"],
                name="unbilled_late_usage_of_a_meter_is_noted_once_a_period",
            ),
        )

    def __str__(self) -> str:
        return f"{self.meter} of {self.account}: {self.reason}"
