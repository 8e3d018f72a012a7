from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings


@pytest.fixture
def _static_files_have_a_folder(settings: Settings, tmp_path: Path) -> None:
    """The web server warns without one, and warnings are errors here."""
    settings.STATIC_ROOT = tmp_path
