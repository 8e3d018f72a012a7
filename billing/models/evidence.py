"""What an invoice line rests on, kept for as long as the invoice is."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from billing.models.invoice_lines import InvoiceLine


class InvoiceEvidence(models.Model):
    """What one life used for one usage line, between which counters it was measured.

    Copied from the usage records when the invoice becomes final; they go after their retention.
    The quantities of a line's rows sum to the line's. Frozen with the invoice.
    """

    line = models.ForeignKey(InvoiceLine, on_delete=models.CASCADE, related_name="evidence")
    sandbox_id = models.CharField(max_length=128)
    life_id = models.BigIntegerField()
    container_id = models.CharField(max_length=128)
    started_at = models.DateTimeField()
    # Windows with a record, the first and the last of them, and the samples they rest on.
    window_count = models.PositiveIntegerField()
    first_window = models.DateTimeField()
    last_window = models.DateTimeField()
    sample_count = models.BigIntegerField()
    # Base units of the line's meter.
    quantity = models.DecimalField(max_digits=40, decimal_places=0)
    # The counter before the first and after the last of the windows, over all interfaces; empty
    # for what is no counter. Their difference is the quantity, but where the counter was reset.
    opening = models.DecimalField(max_digits=40, decimal_places=0, null=True)
    closing = models.DecimalField(max_digits=40, decimal_places=0, null=True)
    # Time in which the meter applied, and the part of it that was measured.
    applied_ms = models.BigIntegerField()
    measured_ms = models.BigIntegerField()
    # SHA-256 over the windows' records, hexadecimal; metering.evidence says how.
    records_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "invoice evidence"
        constraints = (
            models.UniqueConstraint(
                fields=["line", "life_id"], name="life_is_evidence_of_a_line_once"
            ),
            models.CheckConstraint(
                condition=Q(window_count__gt=0, last_window__gte=F("first_window")),
                name="evidence_has_windows",
            ),
            models.CheckConstraint(
                condition=Q(opening__isnull=True, closing__isnull=True)
                | Q(opening__isnull=False, closing__isnull=False),
                name="evidence_has_both_counters_or_none",
            ),
        )

    def __str__(self) -> str:
        return f"{self.sandbox_id} since {self.started_at:%Y-%m-%d %H:%M}"
