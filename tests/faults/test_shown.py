"""What docs/faults.md says is shown is shown: each test that it names is there and is collected."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT

TABLE = (ROOT / "docs" / "faults.md").read_text().partition("## What is shown where")[2]
ROWS = {
    row.split("|")[1].strip(): row for row in re.findall(r"^\| [A-Z]\d.*$", TABLE, re.MULTILINE)
}
# There is no nineteenth.
FAULTS = [f"F{number}" for number in range(1, 21) if number != 19]
OTHERS = [
    f"{kind}{number}"
    for kind, last in (("S", 9), ("L", 4), ("D", 8))
    for number in range(1, last + 1)
]
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", TABLE)))


@cache
def defined_in(file: str) -> set[str]:
    """Return the tests of a file, as pytest finds them: by their names, outside of classes."""
    path = ROOT / file
    assert path.name.startswith("test_")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def test_each_has_a_row_with_a_test_or_a_command() -> None:
    assert set(ROWS) == {*FAULTS, "F8b", *OTHERS}
    for row in ROWS.values():
        assert re.search(r"`(tests/\S+::test_\w+|make [a-z-]+)`", row), row


def test_a_row_that_names_a_path_names_a_test() -> None:
    assert len(NAMED) > 60
    for name in re.findall(r"`(tests/[^`]*)`", TABLE):
        assert re.fullmatch(r"tests/[\w/]+\.py(::test_\w+)?", name), name
        assert Path(ROOT, name.partition("::")[0]).is_file(), name


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_is_said_to_show_it_is_there(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in defined_in(file)
