from __future__ import annotations

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Collecting what invoices ask for. It rests on billing; billing knows nothing of it."""

    name = "payments"

    def ready(self) -> None:
        """Have billing ask here before it voids an invoice."""
        # Models can be imported from here on only.
        from billing.services import register_void_guard  # noqa: PLC0415
        from payments.services.voiding import why_not_void  # noqa: PLC0415

        register_void_guard(why_not_void)
