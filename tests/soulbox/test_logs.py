from __future__ import annotations

import logging

from soulbox.logs import LineFormatter


def test_a_line_ends_with_the_ids_of_the_event() -> None:
    record = logging.makeLogRecord(
        {"msg": "invoice %s", "args": ("final",), "levelname": "INFO", "invoice_id": 7}
    )
    formatter = LineFormatter("{levelname} {message}", style="{")
    assert formatter.format(record) == "INFO invoice final invoice_id=7"


def test_objects_that_django_adds_are_left_out() -> None:
    record = logging.makeLogRecord({"msg": "gone", "request": object(), "status_code": 404})
    assert LineFormatter("{message}", style="{").format(record) == "gone status_code=404"
