"""The dashboards: whatever they ask Prometheus has an answer while the service runs."""

from __future__ import annotations

import math
import re

import pytest

from tests.deployment.dashboards import dashboards, queries, variables
from tests.live import monitors
from tests.live.breaking import Breakage
from tests.live.watching import Watch

pytestmark = pytest.mark.timeout(900)

BOARDS = dashboards()


@pytest.mark.parametrize(("where", "query"), [pytest.param(*one, id=one[0]) for one in queries()])
def test_each_query_has_an_answer(
    where: str, query: str, breakage: Breakage, broken: Watch
) -> None:
    del broken
    answer = monitors.ask(breakage.stack.prometheus, "/api/v1/query", query=query)
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    assert [value for value in values if not math.isnan(value)], (where, query)


@pytest.mark.parametrize("name", BOARDS)
def test_each_variable_has_values(name: str, breakage: Breakage, broken: Watch) -> None:
    del broken
    for variable in variables(BOARDS[name]):
        series, label = re.fullmatch(
            r"label_values\((.+), (\w+)\)", variable["definition"]
        ).groups()  # type: ignore[union-attr]  # None fails too
        path = f"/api/v1/label/{label}/values"
        answer = monitors.ask(breakage.stack.prometheus, path, **{"match[]": series})
        assert answer["data"], variable["definition"]
