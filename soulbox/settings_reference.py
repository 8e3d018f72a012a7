"""The settings reference and `.env.example`, made from the one list in environment.py."""

from __future__ import annotations

from pathlib import Path

from soulbox.environment import VARIABLES

PAGE = "docs/settings.md"
EXAMPLE = ".env.example"
MADE_BY = "Made by `manage.py settings_reference` from `soulbox/environment.py`; edit that."


def pages() -> dict[str, str]:
    """Return the text of each page, by its path in the project."""
    return {PAGE: _page(), EXAMPLE: _example()}


def out_of_date(project: Path) -> list[str]:
    """Return the pages whose text is not what the code says."""
    return [
        name
        for name, text in pages().items()
        if not (project / name).exists() or (project / name).read_text() != text
    ]


def _page() -> str:
    rows = [
        f"| `{variable.name}` | {_as_code(variable.default)} | {variable.meaning} |"
        for variable in VARIABLES.values()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            f"<!-- {MADE_BY} -->",
            "",
            "Every setting is an environment variable; `docker compose` reads them from `.env`.",
            "With none of them set, everything runs on this machine alone.",
            "",
            "| variable | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _as_code(default: str) -> str:
    return f"`{default}`" if default else ""


def _example() -> str:
    blocks = [
        f"# {variable.meaning}\n#{variable.name}={variable.default}"
        for variable in VARIABLES.values()
    ]
    return "\n\n".join([f"# {MADE_BY}", *blocks]) + "\n"
