"""The reports there are, by name: what each asks for, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.conf import settings

from billing.models import Account
from billing.queries import one_snapshot
from billing.reports.credit_liability import credit_rows
from billing.reports.focus import focus_rows
from billing.reports.month import Month
from billing.reports.receivables import receivable_rows
from billing.reports.revenue import revenue_rows
from billing.reports.rows import (
    CreditRow,
    FocusRow,
    ReceivableRow,
    RevenueRow,
    Row,
    SandboxUsageRow,
    UsageRow,
)
from billing.reports.sandboxes import sandbox_rows
from billing.reports.usage import usage_rows


class ReportRefusedError(ValueError):
    """The report cannot be made like this; `field` names what is no good."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Span(StrEnum):
    """What a report is about. The value names what has to be said."""

    MONTH = "month"
    AS_OF = "as_of"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a report: a month or a day, whichever it is about, and maybe an account.

    `now` is up to when what is not invoiced is computed.
    """

    now: datetime
    month: Month
    as_of: date
    account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A kind of report. `rows` reads as it is read from, in one snapshot of the database."""

    name: str
    title: str
    about: Span
    row_type: type[Row]
    make: Callable[[Asked], Iterator[Row]]
    takes_account: bool = False

    def rows(self, asked: Asked) -> Iterator[Row]:
        """Yield the rows; one moment of the database, and a bounded number of rows at once."""
        with one_snapshot():
            yield from self.make(asked)

    def file_name(self, asked: Asked, form: str) -> str:
        """Return what a file of it is called."""
        about = asked.month if self.about is Span.MONTH else asked.as_of
        return f"{self.name.replace('_', '-')}-{about}.{form}"


_ALL: Final = (
    Report(
        "usage",
        "Usage",
        Span.MONTH,
        UsageRow,
        lambda asked: usage_rows(asked.month, now=asked.now, account_id=asked.account_id),
        takes_account=True,
    ),
    Report(
        "usage_by_sandbox",
        "Usage by sandbox",
        Span.MONTH,
        SandboxUsageRow,
        lambda asked: sandbox_rows(asked.month, now=asked.now, account_id=asked.account_id),
        takes_account=True,
    ),
    Report(
        "revenue",
        "Revenue by plan and meter",
        Span.MONTH,
        RevenueRow,
        lambda asked: revenue_rows(asked.month),
    ),
    Report(
        "receivables",
        "Ageing of receivables",
        Span.AS_OF,
        ReceivableRow,
        lambda asked: receivable_rows(
            asked.as_of,
            payment_terms_days=settings.SELLER_PAYMENT_TERMS_DAYS,
            seller_zone=settings.SELLER_TIME_ZONE,
        ),
    ),
    Report(
        "credit_liability",
        "Credit liability",
        Span.AS_OF,
        CreditRow,
        lambda asked: credit_rows(asked.as_of),
    ),
    Report(
        "focus",
        "FOCUS cost export",
        Span.MONTH,
        FocusRow,
        lambda asked: focus_rows(asked.month, seller=settings.SELLER_NAME),
    ),
)
REPORTS: Final[Mapping[str, Report]] = {report.name: report for report in _ALL}


def ask(
    report: Report,
    *,
    now: datetime,
    month: str | None = None,
    as_of: str | None = None,
    account: str | None = None,
) -> Asked:
    """Return what is asked, from what was written. Raises ReportRefusedError naming the field.

    Without a day, it is today in UTC; a month has to be said.
    """
    said = {Span.MONTH: month, Span.AS_OF: as_of}
    for span, text in said.items():
        if text and span is not report.about:
            raise ReportRefusedError(span, f"{report.title} is by {report.about}. Leave it out.")
    if account and not report.takes_account:
        raise ReportRefusedError("account", f"{report.title} is of all accounts. Leave it out.")
    return Asked(
        now=now,
        month=_month(month) if report.about is Span.MONTH else Month(now.year, now.month),
        as_of=_day(as_of, now),
        account_id=_account(account) if account else None,
    )


def _month(text: str | None) -> Month:
    if not text:
        raise ReportRefusedError(Span.MONTH, "Say which, as in 2026-05.")
    try:
        return Month.parse(text)
    except ValueError as error:
        raise ReportRefusedError(Span.MONTH, str(error)) from None


def _day(text: str | None, now: datetime) -> date:
    if not text:
        return now.date()
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ReportRefusedError(
            Span.AS_OF, f"{text[:20]!r} is not a day. Write it as in 2026-05-31."
        ) from None
    if day >= date.max.replace(month=1):
        raise ReportRefusedError(Span.AS_OF, f"{day} is too far ahead.")
    return day


def _account(text: str) -> UUID:
    try:
        account_id = UUID(text)
    except ValueError:
        raise ReportRefusedError("account", f"{text[:40]!r} is not an account's id.") from None
    if not Account.objects.filter(pk=account_id).exists():
        raise ReportRefusedError("account", f"There is no account {account_id}.")
    return account_id
