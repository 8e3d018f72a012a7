from __future__ import annotations

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    """Collecting what invoices ask for. It rests on billing; billing knows nothing of it."""

    name = "payments"

    def ready(self) -> None:
        """Have billing ask here before it voids or closes, and say here what it caps."""
        # Models can be imported from here on only.
        from billing.services import (  # noqa: PLC0415
            register_refunder,
            register_stopper,
            register_void_guard,
        )
        from billing.services.erasing import register_eraser  # noqa: PLC0415
        from billing.signals import account_capped, account_uncapped  # noqa: PLC0415
        from payments.services.closing import refund_prepaid, stop_sandboxes  # noqa: PLC0415
        from payments.services.erasing import erase_conversation  # noqa: PLC0415
        from payments.services.voiding import why_not_void  # noqa: PLC0415
        from payments.tasks import hurry_cap  # noqa: PLC0415

        register_void_guard(why_not_void)
        register_stopper(stop_sandboxes)
        register_refunder(refund_prepaid)
        register_eraser(erase_conversation)
        account_capped.connect(hurry_cap, dispatch_uid="payments.hurry_cap")
        account_uncapped.connect(hurry_cap, dispatch_uid="payments.hurry_cap")
