"""What the services of payments raise when a person should say it differently."""

from __future__ import annotations

from billing.admin.refusals import register_refusals
from payments.provider import ProviderError
from payments.services.anew import NotRefusedError
from payments.services.offline import PaymentRefusedError
from payments.services.refunds import RefundRefusedError

register_refusals(NotRefusedError, PaymentRefusedError, ProviderError, RefundRefusedError)
