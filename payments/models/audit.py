"""What of payments the audit trail keeps: what people decide, and is not added to elsewhere."""

from __future__ import annotations

import pgtrigger
from django.db import models

from billing.models.audit import Audited
from payments.models.dunning import DunningStep
from payments.models.money import Refund


class AuditedRefund(Audited):
    """Leaves out whose turn it is: the sweeps move that, and decide nothing."""

    left_out = ("claimed_until", "try_at")


AUDITED: tuple[type[models.Model], ...] = (DunningStep, Refund)
pgtrigger.register(Audited(name="audited"))(DunningStep)
pgtrigger.register(AuditedRefund(name="audited"))(Refund)
