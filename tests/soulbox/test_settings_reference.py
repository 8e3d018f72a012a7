from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from soulbox.environment import VARIABLES
from soulbox.settings_reference import EXAMPLE, out_of_date, pages
from tests.soulbox.processes import PROJECT

READERS = {"text", "short_text", "integer", "flag", "names", "path", "zone", "choice", "free_port"}
# Not settings of ours: Django's own, and the shell's.
NOT_OURS = {"DJANGO_SETTINGS_MODULE", "PATH"}


def _sources() -> Iterator[Path]:
    yield PROJECT / "manage.py"
    for app in ("soulbox", "payments", "billing", "metering"):
        yield from (PROJECT / app).rglob("*.py")


def _name_of(function: ast.expr) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _names_read() -> set[str]:
    return {
        node.args[0].value
        for source in _sources()
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call)
        and _name_of(node.func) in READERS
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        and node.args[0].value.isupper()
    }


def _names_read_past_the_list() -> set[str]:
    found: set[str] = set()
    for source in _sources():
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value)):
                    found.add(str(value))
                case ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ")),
                    args=[ast.Constant(value), *_],
                ):
                    found.add(str(value))
                case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value), *_]):
                    found.add(str(value))
    return found


def test_every_variable_that_is_read_is_declared_and_every_declared_one_is_read() -> None:
    assert _names_read() == set(VARIABLES)


def test_the_environment_is_read_through_the_list_alone() -> None:
    assert _names_read_past_the_list() <= NOT_OURS


def test_the_pages_are_what_the_code_says() -> None:
    assert out_of_date(PROJECT) == []


def test_a_page_that_was_edited_or_is_missing_is_out_of_date(tmp_path: Path) -> None:
    for name, text in pages().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert out_of_date(tmp_path) == []
    (tmp_path / EXAMPLE).write_text("edited")
    assert out_of_date(tmp_path) == [EXAMPLE]
    (tmp_path / EXAMPLE).unlink()
    assert out_of_date(tmp_path) == [EXAMPLE]


def test_the_example_sets_nothing_until_a_line_is_uncommented() -> None:
    lines = pages()[EXAMPLE].splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    assert {line[1:].split("=")[0] for line in lines if line[:2].strip("#").isupper()} == set(
        VARIABLES
    )
