"""An attempt to have a provider's invoice paid, and what became of it."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing.services import lock_account
from metering.log_lines import log_committed
from payments.models import LIVE_ATTEMPT, Collection, PaymentAttempt, ProviderCall
from payments.provider import (
    BillStatus,
    DeclinedError,
    PaymentState,
    ProviderBill,
    ProviderPayment,
    RefusedError,
)
from payments.services.calling import is_repeatable, last_call, make_call
from payments.services.collections import CHANGED, still_asks_for_what_is_owed, take_back
from payments.services.customers import ensure_customer
from payments.services.methods import default_method, take_methods
from payments.services.pausing import FIRST_PAUSE, pause_after, wait
from payments.services.providing import provider
from payments.services.refusing import call_of, fault_of, report_fault
from payments.services.settling import fail_attempt, settle

logger = logging.getLogger(__name__)

LOOK_AGAIN = timedelta(minutes=5)
"""When a payment that the provider has under way is looked at again."""
NO_METHOD = "no_payment_method"
Try = PaymentAttempt.Status


def pay(
    collection: Collection, bill: ProviderBill, attempt: PaymentAttempt, *, now: datetime
) -> bool:
    """Have an open invoice paid; return whether there is more to do at once.

    `bill` is how it stands at the provider at this moment. The caller has claimed the collection.
    Raises ProviderError.
    """
    if fault := fault_of(collection, bill):
        report_fault(collection, bill, fault, now=now)
        return False
    if _is_taken_back(collection, now=now):
        return True
    if not attempt.method_id and not _choose_method(attempt, collection.account_id, now=now):
        message = "The account has no payment method."
        fail_attempt(attempt, Try.FAILED, code=NO_METHOD, message=message, now=now)
        return True
    _charge(collection, bill, attempt, now=now)
    return True


def _is_taken_back(collection: Collection, *, now: datetime) -> bool:
    """Return whether it is to be voided at the provider, as what does not ask for what is owed."""
    with transaction.atomic():
        lock_account(collection.account_id)
        if not still_asks_for_what_is_owed(collection):
            take_back(collection, reason=CHANGED, now=now)
        return Collection.objects.exclude(void_reason="").filter(pk=collection.pk).exists()


def _choose_method(attempt: PaymentAttempt, account_id: UUID, *, now: datetime) -> bool:
    method_id = default_method(account_id)
    if not method_id:
        # Of one that was just added the webhook may still be on its way.
        take_methods(ensure_customer(account_id, now=now), now=now)
        method_id = default_method(account_id)
    # Kept, so that the same key is never used for another card; a worker whose lease was over may
    # have been quicker.
    PaymentAttempt.objects.filter(pk=attempt.pk, method_id="").update(method_id=method_id)
    attempt.refresh_from_db(fields=["method_id"])
    return bool(attempt.method_id)


def _charge(
    collection: Collection, bill: ProviderBill, attempt: PaymentAttempt, *, now: datetime
) -> None:
    key = f"{collection.pk}-att-{attempt.number}-pay"
    asked = {"invoice": bill.id, "payment_method": attempt.method_id}
    call = call_of(collection, key, "invoices.pay", asked, attempt=attempt)
    method_id = attempt.method_id
    # From here on it may be paid, whatever becomes of this worker.
    PaymentAttempt.objects.filter(pk=attempt.pk, status=Try.PENDING).update(status=Try.UNKNOWN)
    log_committed(
        logger,
        "payment attempted",
        attempt_id=attempt.pk,
        collection_id=str(collection.pk),
        account_id=collection.account_id,
        amount=f"{collection.amount:.2f}",
        currency=collection.currency,
    )
    try:
        paid = make_call(
            call,
            lambda once: provider().pay_bill(bill.id, method_id=method_id, key=once),
            now=now,
        )
    except DeclinedError as error:
        status = Try.ACTION_REQUIRED if error.needs_customer else Try.FAILED
        _fail(attempt, status, error, now=now)
        return
    except RefusedError as error:
        # It may be paid already, by the customer on the provider's page.
        paid = provider().bill(bill.id)
        if paid.status is not BillStatus.PAID:
            _fail(attempt, Try.FAILED, error, now=now)
            return
    settle(collection, paid, now=now, because=f"Payment attempt {attempt.number}")
    if paid.status is not BillStatus.PAID:
        PaymentAttempt.objects.filter(LIVE_ATTEMPT, pk=attempt.pk).update(status=Try.PROCESSING)
        wait(collection, FIRST_PAUSE, now=now)


def _fail(
    attempt: PaymentAttempt,
    status: PaymentAttempt.Status,
    error: DeclinedError | RefusedError,
    *,
    now: datetime,
) -> None:
    fail_attempt(
        attempt,
        status,
        code=error.code,
        decline_code=getattr(error, "decline_code", ""),
        message=str(error),
        now=now,
    )


def _fail_as(attempt: PaymentAttempt, payment: ProviderPayment, *, now: datetime) -> None:
    codes = {payment.failure_code, payment.decline_code}
    needs_customer = (
        payment.state is PaymentState.NEEDS_CUSTOMER or "authentication_required" in codes
    )
    fail_attempt(
        attempt,
        Try.ACTION_REQUIRED if needs_customer else Try.FAILED,
        code=payment.failure_code or "not_paid",
        decline_code=payment.decline_code,
        message=payment.failure_message,
        now=now,
    )


def look_up(
    collection: Collection, bill: ProviderBill, attempt: PaymentAttempt, *, now: datetime
) -> bool:
    """Find out what became of an attempt whose invoice is not paid. It is not tried anew."""
    key = f"{collection.pk}-att-{attempt.number}-pay"
    last = last_call(key)
    # The provider said no, and whoever asked ended before it was written down.
    was_refused = last is not None and last.outcome == ProviderCall.Outcome.REFUSED
    is_told = was_refused or attempt.status == Try.PROCESSING
    for payment in map(provider().payment, {p.payment_id for p in bill.payments if p.payment_id}):
        if payment.state is PaymentState.PROCESSING:
            PaymentAttempt.objects.filter(LIVE_ATTEMPT, pk=attempt.pk).update(status=Try.PROCESSING)
            wait(collection, LOOK_AGAIN, now=now)
            return False
        if is_told and payment.state is not PaymentState.SUCCEEDED:
            _fail_as(attempt, payment, now=now)
            return True
    if was_refused:
        message = "The provider refused it."
        fail_attempt(attempt, Try.FAILED, code="not_paid", message=message, now=now)
        return True
    if _is_taken_back(collection, now=now):
        # Asked again it might be charged only now. Once it is void there, it never is.
        return True
    if is_repeatable(key, now=now):
        # Under the same key the provider does nothing twice: it says again what it said then.
        _charge(collection, bill, attempt, now=now)
        return True
    # It is at its end with it, and the invoice is not paid: that attempt charged nothing.
    message = "The provider failed, and charged nothing."
    return _replace(collection, attempt, message, now=now)


def _replace(
    collection: Collection, attempt: PaymentAttempt, message: str, *, now: datetime
) -> bool:
    """End an attempt that the provider lost, and begin another: it is not the customer's fault."""
    with transaction.atomic():
        lock_account(collection.account_id)
        ended = PaymentAttempt.objects.filter(LIVE_ATTEMPT, pk=attempt.pk).update(
            status=Try.ABANDONED,
            ended_at=now,
            failure_code="provider_error",
            failure_message=message,
        )
        if ended:
            PaymentAttempt.objects.create(
                collection=collection,
                number=attempt.number + 1,
                trigger=attempt.trigger,
                requested_by_id=attempt.requested_by_id,
                started_at=now,
            )
            wait(collection, pause_after(collection.failures), now=now)
            Collection.objects.filter(pk=collection.pk).update(failures=F("failures") + 1)
    return False
