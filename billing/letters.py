"""What e-mails say: subject and two bodies, from facts, with every text made fit to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from django.template.loader import render_to_string

from billing.documents.text import one_line
from metering.period import Period

MOST_CHARACTERS: Final = 10_000
"""A text from outside is cut here."""
MOST_IN_SUBJECT: Final = 150
"""A subject is cut here: mail programs show less, and the table keeps 200."""

# Not by strftime: its names are those of the process's locale.
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


@dataclass(frozen=True, slots=True)
class Letter:
    """An e-mail's words. The subject is one line; the text is plain, the HTML escaped."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a letter is made from.

    `facts` are names and values of a small table; `says` is what else the template asks for.
    `link` is an address of the API; `page` one that is opened as it is, and what it is for.
    """

    template: str
    subject: str
    account_name: str
    facts: Sequence[tuple[str, str]]
    link: str = ""
    page: tuple[str, str] = ("", "")
    says: Mapping[str, str | bool] = field(default_factory=dict)


def write_letter(content: Content) -> Letter:
    """Return the letter. Whatever a name holds comes out as text, on one line."""
    facts = [(name, _fit(value)) for name, value in content.facts]
    words = {
        **{
            key: _fit(word) if isinstance(word, str) else word for key, word in content.says.items()
        },
        "subject": _fit(content.subject, MOST_IN_SUBJECT),
        "account_name": _fit(content.account_name),
        "facts": facts,
        "link": content.link,
        "page_for": content.page[0],
        "page": content.page[1],
    }
    return Letter(
        subject=_fit(content.subject, MOST_IN_SUBJECT),
        text=render_to_string(f"mail/{content.template}.txt", words).strip() + "\n",
        html=render_to_string(f"mail/{content.template}.html", words),
    )


def day_text(day: date) -> str:
    """Return a day as people write it: 1 May 2026."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def moment_text(moment: datetime, zone: ZoneInfo) -> str:
    """Return a moment on the clocks of `zone`, which it names."""
    local = moment.astimezone(zone)
    return f"{day_text(local.date())}, {local:%H:%M} ({zone.key})"


def period_text(period: Period, zone: ZoneInfo) -> str:
    """Return a period on the clocks of `zone`, from its first moment to the one it ends before."""
    start, end = period.start.astimezone(zone), period.end.astimezone(zone)
    return (
        f"{day_text(start.date())}, {start:%H:%M} to {day_text(end.date())}, {end:%H:%M} "
        f"({zone.key})"
    )


def _fit(text: str, most: int = MOST_CHARACTERS) -> str:
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
