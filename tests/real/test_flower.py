"""Flower, as the compose file runs it: behind its password it shows workers, queues and tasks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from soulbox.celery import CANARY_INTERVAL_S, QUEUES, app
from tests.deployment.test_compose import SERVICES
from tests.processes import running, wait_until
from tests.real.browser import chromium

# A worker and Flower start, which takes a minute where much else runs.
pytestmark = pytest.mark.timeout(600)

NAME, PASSWORD = "operator", "correct-horse"
PATIENCE_S = 180
# What is asked without a password: monitors and checks of containers do.
OPEN = {"/healthcheck", "/metrics"}
CLOSED = [
    "/",
    "/workers",
    "/tasks",
    "/broker",
    "/tasks/datatable",
    "/worker/billing@here",
    "/task/1",
    "/api/workers",
    "/api/tasks",
    "/api/task/types",
    "/api/task/info/1",
    "/api/queues/length",
]
COMMANDS = [
    "/api/worker/shutdown/billing@here",
    "/api/worker/queue/cancel-consumer/billing@here?queue=billing",
    "/api/task/send-task/billing.tasks.sweep_billing",
    "/api/task/async-apply/billing.tasks.sweep_billing",
    "/api/task/revoke/1?terminate=true",
]


def ask(address: str, path: str, *, method: str = "GET", password: str = "") -> tuple[int, str]:
    """Return the status and the text of an answer."""
    auth = (NAME, password) if password else None
    answer = requests.request(method, address + path, auth=auth, timeout=30)
    return answer.status_code, answer.text


@pytest.fixture(scope="module")
def flower(
    service_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Run a worker of each queue's and Flower; yield where Flower listens."""
    folder = tmp_path_factory.mktemp("flower")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    env = {**service_environment, "FLOWER_BASIC_AUTH": f"{NAME}:{PASSWORD}"}
    worker = ["-m", *SERVICES["worker-billing"]["command"]]
    worker[worker.index("--queues") + 1] = ",".join(QUEUES)
    program = ["-m", *SERVICES["flower"]["command"]]
    program[program.index("--port=5555")] = f"--port={port}"

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            return ask(address, "/healthcheck") == (200, "OK")
        return False

    with (
        running(*worker, env=env, log=folder / "worker.log"),
        running(*program, "--address=127.0.0.1", env=env, log=folder / "flower.log"),
    ):
        wait_until(answers, seconds=PATIENCE_S, what=f"Flower, see {folder}")
        yield address


def _has_heard(address: str) -> bool:
    """Return whether Flower was told of a task; one more is sent meanwhile."""
    with app.connection_for_write() as connection:
        app.send_task(
            "soulbox.tasks.sing",
            ("billing",),
            queue="billing",
            connection=connection,
            expires=CANARY_INTERVAL_S,
        )
    _, text = ask(address, "/api/tasks", password=PASSWORD)
    return "soulbox.tasks.sing" in text


@pytest.mark.parametrize("path", CLOSED)
def test_without_the_password_it_shows_nothing(path: str, flower: str) -> None:
    for password in ("", "wrong"):
        status, text = ask(flower, path, password=password)
        assert status == 401
        assert "soulbox" not in text


@pytest.mark.parametrize("path", COMMANDS)
def test_without_the_password_nobody_commands(path: str, flower: str) -> None:
    for password in ("", "wrong"):
        status, _ = ask(flower, path, method="POST", password=password)
        assert status in {401, 403}


def test_what_is_open_tells_of_numbers_alone(flower: str) -> None:
    wait_until(lambda: _has_heard(flower), seconds=PATIENCE_S, what="a task that was heard of")
    assert ask(flower, "/healthcheck") == (200, "OK")
    status, text = ask(flower, "/metrics")
    assert status == 200
    ours = [line for line in text.splitlines() if line.startswith("flower_")]
    assert any("soulbox.tasks.sing" in line for line in ours)
    # Names of workers and tasks; no arguments, ids, addresses or passwords.
    labels = {
        part.split("=")[0].strip(',"')
        for line in ours
        if "{" in line
        for part in line.partition("{")[2].partition("}")[0].split('",')
    }
    assert labels <= {"worker", "task", "type", "le"}
    assert "redis" not in text
    assert PASSWORD not in text


def test_an_operator_sees_the_workers_and_their_queues(flower: str, tmp_path: Path) -> None:
    wait_until(lambda: _has_heard(flower), seconds=PATIENCE_S, what="a task that was heard of")
    with chromium() as browser:
        credentials = {"username": NAME, "password": PASSWORD}
        context = browser.new_context(
            http_credentials=credentials,  # type: ignore[arg-type] # a typed dictionary of the same
            viewport={"width": 1280, "height": 900},
        )
        page = context.new_page()
        try:
            page.goto(flower + "/")
            worker = page.get_by_role("link", name="billing@")
            expect(worker).to_be_visible(timeout=PATIENCE_S * 1000)
            expect(page.get_by_role("row").filter(has=worker)).to_contain_text("Online")
            page.screenshot(path=tmp_path / "workers.png", animations="disabled")
            worker.click()
            page.get_by_role("tab", name="Queues").click()
            for queue in QUEUES:
                expect(page.get_by_role("cell", name=queue, exact=True).first).to_be_visible()
            page.screenshot(path=tmp_path / "queues.png", animations="disabled")
            page.goto(flower + "/broker")
            for queue in QUEUES:
                expect(page.get_by_role("cell", name=queue, exact=True).first).to_be_visible()
            page.screenshot(path=tmp_path / "broker.png", animations="disabled")
            page.goto(flower + "/tasks")
            expect(page.get_by_text("soulbox.tasks.sing").first).to_be_visible()
            page.screenshot(path=tmp_path / "tasks.png", animations="disabled")
        finally:
            context.close()
