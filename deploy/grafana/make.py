#!/usr/bin/env python3
"""Writes dashboards/*.json from boards/*.py, where a panel is a few lines that can be read.

In JSON a panel is some fifty lines, of which five say something, and places are set by hand.

    python deploy/grafana/make.py            write them
    python deploy/grafana/make.py --check    end with 1 where one is not as it would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from boards import api, business, metering, payments, workers
from boards.panels import Board

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
BOARDS: tuple[Board, ...] = (
    business.BOARD,
    metering.BOARD,
    payments.BOARD,
    workers.BOARD,
    api.BOARD,
)


def main() -> int:
    """Write the files, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    is_check = parser.parse_args().check
    status = 0
    for board in BOARDS:
        file = DASHBOARDS / f"{board.name}.json"
        text = json.dumps(board.json(), indent=2) + "\n"
        if is_check and (not file.exists() or file.read_text() != text):
            sys.stderr.write(f"{file.name} is not as make.py writes it.\n")
            status = 1
        elif not is_check:
            file.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
