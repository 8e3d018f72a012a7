"""What is printed of an invoice: the files that were given out, and the days of its chart."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from billing.models.columns import amount_column
from billing.models.invoices import Invoice


class InvoiceFile(models.Model):
    """A document as a customer was given it, byte for byte.

    Append-only: the application's database role may not update, delete or truncate.
    """

    class Format(models.TextChoices):
        PDF = "pdf", "PDF"
        CSV = "csv", "CSV"
        JSON = "json", "JSON"

    class Edition(models.TextChoices):
        """A document is as of its issue, but what was paid since or is void says so."""

        ISSUED = "issued"
        PAID = "paid"
        VOID = "void"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="files")
    format = models.CharField(max_length=8, choices=Format)
    edition = models.CharField(max_length=8, choices=Edition)
    content = models.BinaryField()
    sha256 = models.CharField(max_length=64)  # of the content, hexadecimal
    rendered_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=["invoice", "format", "edition"], name="invoice_has_one_file_of_a_format"
            ),
        )

    def __str__(self) -> str:
        return f"{self.invoice} as {self.get_format_display()}"


class InvoiceDays(models.Model):
    """What the usage of each local day cost, from the period's first day on; they sum to the fee.

    Made from the usage records before those are dropped. Append-only, as the files are.
    """

    invoice = models.OneToOneField(Invoice, on_delete=models.PROTECT, related_name="days")
    first_day = models.DateField()
    # In the invoice's currency. Empty: the usage was not kept any more.
    amounts = ArrayField(amount_column())

    class Meta:
        verbose_name_plural = "invoice days"

    def __str__(self) -> str:
        return f"days of {self.invoice}"


class InvoiceMismatch(models.Model):
    """What does not add up about a final invoice, as of the last look. Replaced each time."""

    invoice = models.OneToOneField(Invoice, on_delete=models.PROTECT, related_name="mismatch")
    # A line each: which sum, what it is and what it should be.
    text = models.TextField()
    found_at = models.DateTimeField()

    class Meta:
        ordering = ("-found_at",)
        verbose_name_plural = "invoice mismatches"
        constraints = (models.CheckConstraint(condition=~Q(text=""), name="mismatch_says_what"),)

    def __str__(self) -> str:
        return f"mismatch of {self.invoice}"
