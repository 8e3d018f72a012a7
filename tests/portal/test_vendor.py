from __future__ import annotations

import hashlib
import re
from pathlib import Path

import soulbox.portal

VENDOR = Path(soulbox.portal.__file__).parent / "static/portal/vendor"
ROW = re.compile(r"^\| `(?P<file>[^`]+)` \|.*\| `(?P<sha256>[0-9a-f]{64})` \|$", re.MULTILINE)


def test_files_of_others_are_what_the_readme_says() -> None:
    told = {row["file"]: row["sha256"] for row in ROW.finditer((VENDOR / "README.md").read_text())}
    assert len(told) == 3
    for file in VENDOR.iterdir():
        if file.suffix in {".js", ".css"}:
            assert told.pop(file.name) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told == {}


def test_each_has_its_licence() -> None:
    for file in VENDOR.glob("*.min.*"):
        licence = VENDOR / f"{file.name.partition('.')[0]}.LICENSE"
        assert "Permission" in licence.read_text()
