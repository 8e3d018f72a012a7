"""What CI installs on a bare machine: every program that a test runs is among it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soulbox.processes import PROJECT

SCRIPTS = "\n".join((PROJECT / ".ci" / name).read_text() for name in ("run", "base-image"))
LOOKED_FOR = set(re.findall(r"command -v (\S+) > /dev/null \|\| packages\+=", SCRIPTS))
# Of Debian's essential and required packages, and of those that others above bring along.
ALWAYS_THERE = {"mount", "sh", "umount"}
BROUGHT_ALONG = {"docker": "dockerd"}
RUNS = {"run", "Popen", "check_output", "check_call", "which", "tool"}


def _programs(path: Path) -> Iterator[str]:
    """Yield the programs that a module runs or looks for by a name that it says."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name not in RUNS:
            continue
        first = node.args[0]
        if isinstance(first, ast.List | ast.Tuple) and first.elts:
            first = first.elts[0]
        elif name not in {"which", "tool"}:
            continue
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


PROGRAMS = {
    program: path.relative_to(PROJECT)
    for path in sorted((PROJECT / "tests").rglob("*.py"))
    for program in _programs(path)
}


def test_programs_are_found_at_all() -> None:
    assert {"haproxy", "docker-compose", "docker", "make"} <= set(PROGRAMS)


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_ci_installs_what_a_test_runs(program: str) -> None:
    there = program in ALWAYS_THERE or BROUGHT_ALONG.get(program, program) in LOOKED_FOR
    assert there, f"{PROGRAMS[program]} runs {program}: install its package in .ci/run"


def test_a_browser_and_what_makes_images_are_installed() -> None:
    assert {"chromium", "debootstrap", "busybox", "dockerd", "promtool", "amtool"} <= LOOKED_FOR
