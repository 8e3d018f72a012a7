from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.installation import Installation, installed


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("outages")) as one:
        yield one
