"""An account's work, tried: where it fails, the account is parked and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, transaction

from billing.models import FailureCount, Invoice
from billing.services.accounts import park_account
from billing.services.counting import count_failure
from billing.services.finalising import InvoiceNotReadyError
from billing.services.invoices import PeriodNotOpenError
from billing.services.run_reports import RunReport

logger = logging.getLogger(__name__)


def try_account(
    account_id: UUID,
    work: Callable[[], object],
    report: RunReport | None = None,
    *,
    now: datetime,
) -> bool:
    """Return whether the work was done; an account that it fails for is parked and logged.

    Raises InvoiceNotReadyError, and what says nothing about the account.
    """
    try:
        with transaction.atomic():
            work()
    except (InvoiceNotReadyError, SoftTimeLimitExceeded):
        # The one is for the caller; the other tells the task to end, and nothing of the account.
        raise
    except (Invoice.DoesNotExist, PeriodNotOpenError):
        # Another sweep was quicker: the draft was of nothing and is gone, its period closed.
        return False
    except OperationalError:
        # A lost connection or a held lock says nothing about the account; the next sweep retries.
        if not connection.is_usable():
            raise
        logger.warning("account is busy", exc_info=True, extra={"account_id": account_id})
        return False
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this account's alone
        park(account_id, error, report, now=now)
        return False
    return True


def park(
    account_id: UUID, error: Exception, report: RunReport | None = None, *, now: datetime
) -> None:
    """Leave the account to a person, with the reason in its row, the report and the log."""
    logger.error("account is parked", exc_info=error, extra={"account_id": account_id})
    reason = f"{type(error).__name__}: {error}"
    with transaction.atomic():
        park_account(account_id, reason=reason, now=now)
        count_failure(FailureCount.Failed.INVOICE)
    if report:
        report.add_parked(account_id, reason)
