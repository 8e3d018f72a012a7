from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.models import InvoiceFile


class DownloadQuerySerializer(serializers.Serializer[Any]):
    """As what an invoice or a credit note is asked for."""

    # A name of its own: `format` alone is one of DRF's methods' arguments, not a field's.
    format = serializers.ChoiceField(choices=InvoiceFile.Format.values)
